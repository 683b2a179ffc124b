"""docs/testing.md by its own words: its files are written down, its tests run, its commands given."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parent.parent.parent / "docs" / "testing.md"
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """As a reader would make it: the first block is a file, the others are tests of it."""
    counters, *tests = BLOCK.findall(PAGE.read_text())
    assert counters.startswith("# counters.py")
    (tmp_path / "counters.py").write_text(counters)
    (tmp_path / "test_counters.py").write_text("\n".join(["from counters import Counter", *tests]))
    return tmp_path


def run(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=directory,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.long
def test_the_tests_of_the_page_pass(directory: Path) -> None:
    done = run(directory, "pytest", "-q", "-p", "no:cacheprovider", "-k", "not processes")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout


@pytest.mark.cluster
def test_the_test_with_processes_passes(directory: Path) -> None:
    done = run(directory, "pytest", "-q", "-p", "no:cacheprovider", "-k", "processes")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


@pytest.mark.long
@pytest.mark.parametrize(("machine", "status", "said"), [("Counter", 0, "OK"), ("CountedReads", 1, "FAILED")])
def test_the_command_of_the_page_says_what_the_page_says(
    directory: Path, machine: str, status: int, said: str
) -> None:
    command = f"connect-kv simulate counters:{machine} --seed 1 --minutes 1"
    _, _, sample = PAGE.read_text().partition(f"$ {command}\n")
    assert sample.startswith(said)
    done = run(directory, "connect_kv.cli.main", *command.split()[1:])
    assert done.returncode == status, done.stdout + done.stderr
    for line in re.split(r"\n[$`]", sample)[0].splitlines():
        # The sample's first difference; how many calls the entry had is chance.
        expected = map(steadily, line.split(";")[0].split("..."))
        assert re.search(".*".join(map(re.escape, expected)), steadily(done.stdout)), done.stdout


def steadily(text: str) -> str:
    """Without what changes whenever the simulated code does."""
    return re.sub(r"\d+(\.\d+)?", "0", text)
