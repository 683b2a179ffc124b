"""Where one value of JSON ends and the next begins, in text that comes piece by piece."""

from __future__ import annotations

import re

from connect_kv.json_mapping.syntax import BLANKS

_STRUCTURE = re.compile(r'[{}\[\]"]')
_IN_STRING = re.compile(r'["\\]')


class Framer:
    """Looks at each character once, however small the pieces are."""

    def __init__(self, most: int) -> None:
        """`most`: characters of one value."""
        self._most = most
        self._text = ""
        self._at = 0
        """Up to there it has been looked at."""
        self._depth = 0
        self._in_string = False
        self._last = False

    def feed(self, text: str, *, last: bool) -> None:
        """More has come. Raises OverflowError for a value that is too long."""
        self._text += text
        self._last = last
        if len(self._text) - self._at > 2 * self._most:
            raise OverflowError

    def next(self) -> str | None:
        """The next value; None until it is there. At the end, what is left of one.

        What is no object and no array is given with all that has come, which is for the decoder to refuse.
        Raises OverflowError for a value that is too long.
        """
        if self._at == 0:
            self._text = self._text.lstrip(BLANKS)
        if not self._text:
            return None
        if self._text[0] not in "{[":
            return self._take(len(self._text))
        if self._scan():
            return self._take(self._at)
        if len(self._text) > self._most:
            raise OverflowError
        return self._take(len(self._text)) if self._last else None

    def _scan(self) -> bool:
        text = self._text
        while True:
            found = (_IN_STRING if self._in_string else _STRUCTURE).search(text, self._at)
            if found is None:
                self._at = len(text)
                return False
            character, self._at = found.group(), found.end()
            if character == '"':
                self._in_string = not self._in_string
            elif character == "\\":
                if self._at == len(text):  # what it escapes has not come yet
                    self._at -= 1
                    return False
                self._at += 1
            else:
                self._depth += 1 if character in "{[" else -1
                if self._depth == 0:
                    return True

    def _take(self, end: int) -> str:
        value, self._text = self._text[:end], self._text[end:]
        self._at, self._depth, self._in_string = 0, 0, False
        return value
