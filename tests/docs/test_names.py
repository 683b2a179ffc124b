"""What the pages say of the code is there: names, files, links."""

from __future__ import annotations

import importlib
import importlib.util
import re
from pathlib import Path

import pytest

import connect_kv

ROOT = Path(__file__).parent.parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")], key=str)

CODE = re.compile(r"`([^`\n]+)`")
NAME = re.compile(r"(?:connect_kv\.)?([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+)(?:\(\))?")
PATH = re.compile(r"(?:connect_kv|tests|scripts|docs|examples|protos)/[\w./-]*\w(?:/)?(::\w+)?")
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(#[^)\s]*)?\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)

OURS = {path.stem for path in (ROOT / "connect_kv").iterdir()} | set(connect_kv.__all__)
ABOUT_CODE = {"architecture.md", "divergence.md"}
"""On these pages every dotted name must be one of ours, or begin as one of ELSEWHERE."""
ELSEWHERE = {"asyncio", "random", "grpc", "os"}
FILES = {"md", "py", "toml", "proto", "txt", "yml", "json", "log"}


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text())


def mentioned(pattern: re.Pattern[str]) -> list[tuple[Path, str]]:
    """What stands between backticks and looks like that, with the page it stands on."""
    found = {(page, code) for page in PAGES for code in CODE.findall(prose(page)) if pattern.fullmatch(code)}
    return sorted(found, key=str)


def resolve(dotted: str) -> None:
    """Raises AttributeError unless it is a module of ours, or something in one."""
    parts = dotted.removeprefix("connect_kv.").removesuffix("()").split(".")
    modules = ["connect_kv"]
    while parts and importlib.util.find_spec(".".join([*modules, parts[0]])) is not None:
        modules.append(parts.pop(0))
        if not hasattr(importlib.import_module(".".join(modules)), "__path__"):
            break
    where: object = importlib.import_module(".".join(modules))
    for part in parts:
        fields = {
            name for base in getattr(where, "__mro__", ()) for name in vars(base).get("__annotations__", {})
        }
        if part not in fields:
            where = getattr(where, part)


def label(value: object) -> str:
    return value.name if isinstance(value, Path) else str(value)


@pytest.mark.parametrize(("page", "name"), mentioned(NAME), ids=label)
def test_every_name_is_in_the_code(page: Path, name: str) -> None:
    first, last = name.removeprefix("connect_kv.").split(".")[0], name.rsplit(".", 1)[-1]
    if first in ELSEWHERE or last in FILES:
        return
    if first not in OURS:
        assert page.name not in ABOUT_CODE, f"{page.name}: {name} is no name of ours"
        return
    try:
        resolve(name)
    except AttributeError as error:
        pytest.fail(f"{page.name}: {name}: {error}")


@pytest.mark.parametrize(("page", "path"), mentioned(PATH), ids=label)
def test_every_file_is_there(page: Path, path: str) -> None:
    file, _, function = path.partition("::")
    assert (ROOT / file).exists(), f"{page.name} names {file}"
    assert function in (ROOT / file).read_text() if function else True


@pytest.mark.parametrize("page", PAGES, ids=label)
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in LINK.findall(prose(page)):
        there = (page.parent / target).resolve() if target else page
        assert there.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor[1:] in anchors(there), f"{page.name}: {target}{anchor}"


def anchors(page: Path) -> set[str]:
    """The headings of a page, as they are linked to."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_drawing_of_a_put_has_the_steps_that_are_told() -> None:
    """Each number in the drawing is a step below it, and each step is drawn."""
    section = (ROOT / "docs/architecture.md").read_text().split("\n## A put")[1].split("\n## ")[0]
    drawing = FENCE.findall(section)[0]
    told = {int(number) for number in re.findall(r"^(\d+)\. ", section, re.MULTILINE)}
    drawn = {int(number) for number in re.findall(r"(?<=[ -])(\d{1,2})(?= )", drawing)}
    assert drawn == told


def test_a_wrong_name_is_found() -> None:
    resolve("raft.ready.Ready.messages_after_persist")
    resolve("interfaces.Clock.now")
    resolve("kv.store")
    with pytest.raises(AttributeError):
        resolve("raft.ready.Ready.no_such_field")
    with pytest.raises(AttributeError):
        resolve("raft.no_such_module.Ready")


def test_the_pages_name_much_of_the_code() -> None:
    assert len(mentioned(NAME)) > 60
