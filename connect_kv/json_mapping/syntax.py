"""What Go's `encoding/json` says of text that is no JSON: its scanner, state by state.

It reads one value and nothing behind it, as a decoder of a stream does.
"""

from __future__ import annotations

import re

BLANKS = " \t\n\r"
MOST_DEPTH = 10_000
"""Objects and arrays within each other, as in Go."""

_BLANK = re.compile(r"[ \t\n\r]*")
_PLAIN = re.compile(r'[^"\\\x00-\x1f]*')
_HEX = "0123456789abcdefABCDEF"
_EOF = "unexpected EOF"


class SyntaxFault(Exception):
    """The text is no JSON; the argument says why, in Go's words."""


def value_end(text: str, at: int) -> int:
    """Where the value that begins at `at`, or after blanks there, ends. Raises SyntaxFault."""
    at = blank_end(text, at)
    closers: list[str] = []
    while True:
        character = _at(text, at)
        if character in "{[":
            closers.append("}" if character == "{" else "]")
            if len(closers) > MOST_DEPTH:
                raise SyntaxFault("exceeded max depth")
            at = blank_end(text, at + 1)
            if _at(text, at) != closers[-1]:
                at = _name_end(text, at) if character == "{" else at
                continue
            closers.pop()
            at += 1
        else:
            at = _scalar_end(text, at)
        while closers:
            at = blank_end(text, at)
            character = _at(text, at)
            at += 1
            if character == ",":
                at = blank_end(text, at)
                if closers[-1] == "}":
                    at = _name_end(text, at)
                break
            if character != closers[-1]:
                where = "after object key:value pair" if closers[-1] == "}" else "after array element"
                raise _unexpected(character, where)
            closers.pop()
        else:
            return at


def blank_end(text: str, at: int) -> int:
    """Where the blanks that begin there end."""
    found = _BLANK.match(text, at)
    return at if found is None else found.end()


def _at(text: str, at: int) -> str:
    if at >= len(text):
        raise SyntaxFault(_EOF)
    return text[at]


def _name_end(text: str, at: int) -> int:
    """After the name of a member and its colon."""
    character = _at(text, at)
    if character != '"':
        raise _unexpected(character, "looking for beginning of object key string")
    at = blank_end(text, _string_end(text, at))
    character = _at(text, at)
    if character != ":":
        raise _unexpected(character, "after object key")
    return blank_end(text, at + 1)


def _scalar_end(text: str, at: int) -> int:
    character = _at(text, at)
    if character == '"':
        return _string_end(text, at)
    if character == "-" or (character.isascii() and character.isdigit()):
        return _number_end(text, at)
    for word in ("true", "false", "null"):
        if character == word[0]:
            for expected in word[1:]:
                at += 1
                if (found := _at(text, at)) != expected:
                    raise _unexpected(found, f"in literal {word} (expecting '{expected}')")
            return at + 1
    raise _unexpected(character, "looking for beginning of value")


def _string_end(text: str, at: int) -> int:
    at += 1
    while True:
        plain = _PLAIN.match(text, at)
        at = at if plain is None else plain.end()
        character = _at(text, at)
        at += 1
        if character == '"':
            return at
        if character != "\\":
            raise _unexpected(character, "in string literal")
        escape = _at(text, at)
        at += 1
        if escape == "u":
            for _ in range(4):
                if (digit := _at(text, at)) not in _HEX:
                    raise _unexpected(digit, "in \\u hexadecimal character escape")
                at += 1
        elif escape not in 'bfnrt\\/"':
            raise _unexpected(escape, "in string escape code")


def _number_end(text: str, at: int) -> int:
    if text[at] == "-":
        at += 1
        if not _is_digit(found := _at(text, at)):
            raise _unexpected(found, "in numeric literal")
    at = at + 1 if text[at] == "0" else _digits_end(text, at)
    if text[at : at + 1] == ".":
        at += 1
        if not _is_digit(found := _at(text, at)):
            raise _unexpected(found, "after decimal point in numeric literal")
        at = _digits_end(text, at)
    if text[at : at + 1] in ("e", "E"):
        at += 1
        if _at(text, at) in "+-":
            at += 1
        if not _is_digit(found := _at(text, at)):
            raise _unexpected(found, "in exponent of numeric literal")
        at = _digits_end(text, at)
    return at


def _digits_end(text: str, at: int) -> int:
    while at < len(text) and _is_digit(text[at]):
        at += 1
    return at


def _is_digit(character: str) -> bool:
    return "0" <= character <= "9"


def _unexpected(character: str, where: str) -> SyntaxFault:
    """Go looks at bytes, and shows one as the character with that number."""
    byte = character.encode("utf-8", "surrogateescape")[:1].decode("latin-1")
    return SyntaxFault(f"invalid character {_quoted(byte)} {where}")


def _quoted(character: str) -> str:
    escapes = {"'": "\\'", '"': '"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    escapes |= {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\v": "\\v"}
    if character in escapes:
        return f"'{escapes[character]}'"
    if character.isprintable():
        return f"'{character}'"
    return f"'\\x{ord(character):02x}'" if ord(character) < 0x80 else f"'\\u{ord(character):04x}'"
