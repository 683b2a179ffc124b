"""The pages of the repository in one folder, with the same paths, so that their links stay true."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from website.places import DOCS, OVERVIEW, ROOT

LINK = re.compile(r"(\]\()(?!https?:|#)([^)#\s]+)((?:#[^)\s]*)?\))")
FENCE = re.compile(r"(^```.*?^```)", re.MULTILINE | re.DOTALL)
LANGUAGES = {".py": "python", ".js": "javascript", ".json": "json", ".toml": "toml", ".proto": "protobuf"}
BESIDE = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")


def gather(source: Path) -> list[str]:
    """Copy all pages and what they link to; returns the pages, by their paths from the root."""
    waiting = [*(ROOT / name for name in BESIDE), *sorted(DOCS.rglob("*.md"))]
    pages: list[str] = []
    seen: set[Path] = {OVERVIEW}
    while waiting:
        page = waiting.pop(0)
        if page in seen:
            continue
        seen.add(page)
        path = page.relative_to(ROOT)
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        text, linked = with_links(page.read_text(), page)
        (source / path).write_text(text)
        pages.append(str(path))
        for one in linked:
            if one.is_dir():
                folder = source / one.relative_to(ROOT) / "index.md"
                folder.parent.mkdir(parents=True, exist_ok=True)
                folder.write_text(listing(one))
                pages.append(str(folder.relative_to(source)))
            elif one.suffix == ".md":
                waiting.append(one)
            else:
                (source / one.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(one, source / one.relative_to(ROOT))
    shutil.copytree(
        DOCS,
        source / "docs",
        dirs_exist_ok=True,
        ignore=lambda _, names: [n for n in names if n.endswith(".md")],
    )
    return sorted(set(pages))


def with_links(text: str, page: Path) -> tuple[str, list[Path]]:
    """The page, with links to folders and to the list of pages led on, and what it links to."""
    linked: list[Path] = []

    def led_on(found: re.Match[str]) -> str:
        target = (page.parent / found[2]).resolve()
        if target == OVERVIEW:
            return f"{found[1]}{'../' * (len(page.relative_to(ROOT).parts) - 1)}index.md{found[3]}"
        if not target.exists():
            return found[0]
        linked.append(target)
        return f"{found[1]}{found[2].rstrip('/')}/index.md{found[3]}" if target.is_dir() else found[0]

    pieces = FENCE.split(text)
    pieces[::2] = [LINK.sub(led_on, piece) for piece in pieces[::2]]
    return "".join(pieces), linked


def listing(folder: Path) -> str:
    """A page with the text files of a folder."""
    name = folder.relative_to(ROOT)
    blocks = [
        f"## {file.relative_to(folder)}\n````{LANGUAGES[file.suffix]}\n{file.read_text()}````\n"
        for file in sorted(folder.rglob("*"))
        if file.suffix in LANGUAGES
        and "node_modules" not in file.parts
        and not file.name.startswith("package")
    ]
    return f"# The folder {name}\n\n" + "\n".join(blocks)
