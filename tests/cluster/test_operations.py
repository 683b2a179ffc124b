"""Every command of two pages is run, section by section, against real processes on free ports."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.cluster.conftest import needs
from tests.etcd import etcd_or_skip
from tests.pages.running import run, script

DOCS = Path(__file__).parent.parent.parent / "docs"
PAGE = DOCS / "operations.md"
MOVING = DOCS / "moving-from-etcd.md"
BASE = "Three members"
FROM_NOTHING = {BASE, "From one member to three"}

BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)


def sections(page: Path = PAGE) -> Mapping[str, str]:
    """The commands of each section that has some, by its heading."""
    found = {}
    for part in re.split(r"^## ", page.read_text(), flags=re.MULTILINE)[1:]:
        heading, _, text = part.partition("\n")
        commands = "".join(BLOCK.findall(text))
        if commands:
            found[heading] = commands
    return found


@pytest.mark.parametrize("section", sections())
def test_commands_of(section: str, tmp_path: Path) -> None:
    needs("curl")
    commands = sections()[section]
    if "etcdctl" in commands:
        needs("etcdctl")
    if section not in FROM_NOTHING:
        commands = sections()[BASE] + commands
    run(script(commands), tmp_path)


@pytest.mark.parametrize("section", sections(MOVING))
def test_moving_from_etcd(section: str, tmp_path: Path) -> None:
    needs("curl")
    etcd_or_skip()
    run(script(sections(MOVING)[section]), tmp_path)


@pytest.mark.parametrize(
    "wrong",
    [
        "echo hello  # prints good-bye",
        "false",
        "true  # ends with 1: nothing",
        "sh -c 'exit 2'  # ends with 2: why",
    ],
)
def test_what_a_page_says_wrongly_is_noticed(wrong: str, tmp_path: Path) -> None:
    done = subprocess.run(["bash", "-c", script(wrong)], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 1


def test_the_page_has_the_sections_that_error_messages_promise() -> None:
    assert {"Replacing a disk", "Changing an address", "From one member to three", "Damage"} <= set(
        sections()
    )
