"""What a page of the site would load from elsewhere when it is opened: it must be nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

LOADED = {
    "script": ("src",), "img": ("src", "srcset"), "iframe": ("src",), "source": ("src", "srcset"),
    "video": ("src", "poster"), "audio": ("src",), "embed": ("src",), "object": ("data",), "link": ("href",),
    "use": ("href", "xlink:href"), "image": ("href", "xlink:href"), "form": ("action",),
}  # fmt: skip
"""Elements that load something, by the attributes that say what."""
HARMLESS_LINKS = {"canonical", "next", "prev", "index", "search", "author", "license", "alternate"}
"""Kinds of <link> that a browser does not fetch."""
IN_CSS = re.compile(r"""(?:url\(\s*['"]?|@import\s+['"])((?:https?:)?//[^'")\s]+)""")
IN_SCRIPT = re.compile(r"""(?:fetch|import|importScripts|XMLHttpRequest)\(\s*['"]((?:https?:)?//[^'"]+)""")


def requests_outside(site: Path) -> list[str]:
    """`file: address` for everything that files of this site load from another host."""
    found: list[str] = []
    for file in sorted(site.rglob("*")):
        if file.suffix in (".html", ".svg"):
            found.extend(f"{file.relative_to(site)}: {address}" for address in _in_page(file.read_text()))
        elif file.suffix in (".css", ".js"):
            pattern = IN_CSS if file.suffix == ".css" else IN_SCRIPT
            found.extend(f"{file.relative_to(site)}: {one}" for one in pattern.findall(file.read_text()))
    return found


def _in_page(text: str) -> Iterator[str]:
    page = _Page()
    page.feed(text)
    yield from page.found


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._style = tag == "style"
        values = dict(attrs)
        if tag == "link" and set((values.get("rel") or "").split()) <= HARMLESS_LINKS:
            return
        for name in LOADED.get(tag, ()):
            for address in re.split(r"[\s,]+", values.get(name) or ""):
                if address.startswith(("http:", "https:", "//")):
                    self.found.append(address)
        self.found.extend(IN_CSS.findall(values.get("style") or ""))

    def handle_data(self, data: str) -> None:
        if self._style:
            self.found.extend(IN_CSS.findall(data))
