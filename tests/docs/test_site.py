"""What is ours of the site: the list of pages, links, and the look for what is loaded from elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from website.gathering import with_links
from website.outside import requests_outside
from website.overview import from_the_root, front_page, parts
from website.places import DOCS, OVERVIEW, ROOT


@pytest.mark.parametrize(
    ("text", "loads"),
    [
        ('<script src="https://a.example/x.js"></script>', ["https://a.example/x.js"]),
        ('<link rel="stylesheet" href="//a.example/x.css">', ["//a.example/x.css"]),
        ('<link rel="canonical" href="https://a.example/">', []),
        ('<img srcset="https://a.example/1.png 1x, 2.png 2x">', ["https://a.example/1.png"]),
        ('<p style="background: url(https://a.example/b.png)">', ["https://a.example/b.png"]),
        ("<style>@import 'https://a.example/c.css';</style>", ["https://a.example/c.css"]),
        ('<a href="https://a.example/">a link is followed by who wants to</a>', []),
        ('<img src="_static/one.png"><script src="_static/two.js"></script>', []),
    ],
)
def test_what_a_page_would_load_from_elsewhere_is_found(text: str, loads: list[str], tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(text)
    assert requests_outside(tmp_path) == [f"page.html: {one}" for one in loads]


def test_fonts_and_scripts_too(tmp_path: Path) -> None:
    (tmp_path / "one.css").write_text("@font-face { src: url('https://a.example/f.woff') }")
    (tmp_path / "two.js").write_text("fetch('https://a.example/api'); fetch('here.json')")
    assert requests_outside(tmp_path) == [
        "one.css: https://a.example/f.woff",
        "two.js: https://a.example/api",
    ]


def test_the_list_has_the_four_kinds_and_their_pages_are_there() -> None:
    found = {part.title: part.pages for part in parts(OVERVIEW.read_text())}
    assert list(found)[:4] == ["Tutorials", "How-to", "Reference", "Explanation"]
    for pages in found.values():
        for page in pages:
            assert (DOCS / page).is_file()


def test_every_tutorial_and_how_to_is_on_the_list() -> None:
    listed = {page for part in parts(OVERVIEW.read_text()) for page in part.pages}
    folders = ("tutorials", "how-to", "explanation", "reference")
    pages = {str(page.relative_to(DOCS)) for folder in folders for page in (DOCS / folder).glob("*.md")}
    assert pages <= listed


def test_a_page_that_is_not_on_the_list_is_not_lost() -> None:
    text = "# Title\n\n## One\n- [a](a.md)\n"
    made = front_page(
        from_the_root(text), {"One": [("docs/made.md", "Made: by code")]}, ["docs/a.md", "b.md"]
    )
    assert "\ndocs/a.md\ndocs/made.md\n" in made
    assert ":caption: More\n:maxdepth: 1\n\nb.md\n" in made
    assert "- [Made](docs/made.md): by code" in made


def test_links_to_folders_lead_to_a_page_of_what_is_in_them() -> None:
    text, linked = with_links("[examples](examples) [pages](docs/README.md#how-to)\n", ROOT / "README.md")
    assert text == "[examples](examples/index.md) [pages](index.md#how-to)\n"
    assert linked == [ROOT / "examples"]
