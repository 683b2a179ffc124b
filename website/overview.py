"""The front page and the order of all pages, from the list in docs/README.md."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

LINK = re.compile(r"\]\((?!https?:)([^)#\s]+\.md)(#[^)\s]*)?\)")


class Part(NamedTuple):
    """One heading of the list: what is said below it, and the pages it names, in order."""

    title: str
    text: str
    pages: list[str]


def parts(text: str) -> list[Part]:
    """The parts of a list of pages; the paths are as they stand there."""
    found = []
    for piece in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        title, _, body = piece.partition("\n")
        pages = list(dict.fromkeys(target for target, anchor in LINK.findall(body) if not anchor))
        found.append(Part(title, body.strip(), pages))
    return found


def from_the_root(text: str) -> str:
    """The list with its links as they are one folder further up."""
    return re.sub(
        r"(\]\()(?!https?:|#)([^)\s]+)\)",
        lambda found: (
            f"{found[1]}{found[2].removeprefix('../') if found[2].startswith('../') else 'docs/' + found[2]})"
        ),
        text,
    )


def front_page(text: str, made: dict[str, list[tuple[str, str]]], all_pages: Iterable[str]) -> str:
    """The page that stands first, with the tree of all others in it, invisible.

    `made`: (page, line) that a part has besides those on the list, made when the site is built. Pages that
    nobody has put on the list come last, so that none is lost.
    """
    intro = text.partition("\n## ")[0]
    placed: set[str] = set()
    blocks = []
    for part in parts(text):
        also = made.get(part.title, [])
        pages = [page for page in [*part.pages, *(page for page, _ in also)] if page not in placed]
        placed.update(pages)
        lines = "\n".join(
            f"- [{line.partition(': ')[0]}]({page}): {line.partition(': ')[2]}" for page, line in also
        )
        blocks.append(f"## {part.title}\n{part.text}\n{lines}\n\n{tree(part.title, pages)}")
    rest = sorted(set(all_pages) - placed)
    if rest:
        blocks.append(f"## More\n{tree('More', rest)}")
    return intro + "\n\n" + "\n".join(blocks)


def tree(title: str, pages: Iterable[str]) -> str:
    """What makes these pages stand in the column on the left."""
    caption = f":caption: {title}\n" if title else ""
    return f"```{{toctree}}\n:hidden:\n{caption}:maxdepth: 1\n\n" + "\n".join(pages) + "\n```\n"
