"""Every block of the tutorials, the how-to pages and their like is run, in an empty directory."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from tests.etcd import etcd_or_skip
from tests.pages.blocks import Block, blocks
from tests.pages.running import run, script_of

DOCS = Path(__file__).parent.parent.parent / "docs"
FOLDERS = ("tutorials", "how-to", "reference", "explanation")
PAGES = sorted(page for folder in FOLDERS for page in (DOCS / folder).glob("*.md"))
LANGUAGES = {"sh", "console", "python", "toml", "ini", "yaml", "text"}
NOT_RUN = 12
"""At most so many blocks may say why they are not run."""


def parts() -> dict[str, list[Block]]:
    """Pages that have something to run, by name; those that begin anew in parts."""
    found = {}
    for page in PAGES:
        for part, inside in itertools.groupby(blocks(page), key=lambda block: block.part):
            mine = list(inside)
            if any(one.language in ("sh", "console", "python") and not one.not_run for one in mine):
                found[f"{page.parent.name}/{page.stem}" + (f"-{part}" if part else "")] = mine
    return found


@pytest.mark.cluster
@pytest.mark.parametrize("part", parts())
def test_a_page_does_what_it_says(part: str, tmp_path: Path) -> None:
    mine = parts()[part]
    if any("etcd --name" in one.text for one in mine):
        etcd_or_skip()
    run(script_of(mine), tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_each_block_is_of_a_kind_that_is_run_or_says_why_not(page: Path) -> None:
    for block in blocks(page):
        where = f"{page.name}:{block.line}"
        assert block.language in LANGUAGES, f"{where}: say what it is: {block.language!r}"
        if block.language in ("toml", "ini", "yaml"):
            assert block.file or block.not_run, (
                f"{where}: name the file in its first line, or why it is not run"
            )
        if block.not_run:
            assert len(block.not_run.split()) >= 4, f"{where}: give the reason"


def test_few_blocks_are_not_run() -> None:
    said = [block.not_run for page in PAGES for block in blocks(page) if block.not_run]
    assert len(said) <= NOT_RUN, said


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("```console\n$ echo hello\nhello\n```\n", True),
        ("```console\n$ echo hello\ngood-bye\n```\n", False),
        ("```console\n$ echo 'took 12 ms'\ntook ... ms\n$ echo two\ntwo\n```\n", True),
        ("```console\n$ printf 'a\\nb\\nc\\n'\na\n...\nc\n```\n", True),
        ("```console\n$ printf 'a\\nb\\n'\na\n```\n", False),
        ("```python\n# one.py\nprint('one')\n```\n```sh\npython one.py  # prints one\n```\n", True),
        ("```python\nraise SystemExit(1)\n```\n", False),
        ("<!-- not run: it would fail here -->\n```sh\nfalse\n```\n", True),
        ("```sh\nfalse\n```\n", False),
    ],
)
def test_what_a_page_shows_is_compared(text: str, right: bool, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Page\n{text}")
    if right:
        run(script_of(blocks(page)), tmp_path)
    else:
        with pytest.raises(AssertionError):
            run(script_of(blocks(page)), tmp_path)
