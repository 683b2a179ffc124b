"""A page taken apart into its blocks of commands, code and files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

FENCE = re.compile(r"^( *)```+(?!.*```)(.*)$")
NOT_RUN = re.compile(r"<!-- not run: (.+) -->")
ANEW = "<!-- anew -->"
"""Stands below a heading: from here on in another empty directory, with no member running."""
FILE = re.compile(r"(?:#|//) ([\w./-]+\.\w+)\n")


class Block(NamedTuple):
    """What stands between two fences."""

    section: str
    language: str
    text: str
    not_run: str
    """Why it is not run, where the page says so."""
    line: int
    part: int
    """Counts the places where the page begins anew."""

    @property
    def file(self) -> str:
        """The file that it is, by its first line; none: empty."""
        found = FILE.match(self.text)
        return found[1] if found and self.language not in ("sh", "console", "") else ""


def blocks(page: Path) -> Iterator[Block]:
    """All of them, in order."""
    section, before, part = "", "", 0
    inside: list[str] | None = None
    language, begun = "", 0
    for number, line in enumerate(page.read_text().splitlines(), 1):
        fence = FENCE.match(line)
        if inside is not None:
            if fence and not fence[2]:
                reason = NOT_RUN.fullmatch(before)
                yield Block(section, language, "".join(inside), reason[1] if reason else "", begun, part)
                inside, before = None, ""
            else:
                inside.append(line + "\n")
        elif fence:
            inside, language, begun = [], fence[2].strip(), number
        elif line.strip():
            before = line.strip()
            if before == ANEW:
                part += 1
            if heading := re.match(r"#+ (.+)", line):
                section = heading[1]
