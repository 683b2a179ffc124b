"""docs/replicated-classes.md by its own words: its files in an empty project, and every rule's two lines."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from connect_kv import Replicated
from connect_kv.errors import CommandFailed, ConfigError
from connect_kv.framework import data
from connect_kv.statemachine.hosted import MachineCall, ReplicatedMachine
from connect_kv.testing.simulation.determinism import check_determinism
from connect_kv.testing.simulation.invariants import Violation

PAGE = Path(__file__).parent.parent.parent / "docs" / "replicated-classes.md"
TEXT = PAGE.read_text()
FILE = re.compile(r"```python\n# (\w+\.py)\n(.*?)```", re.DOTALL)
RULES = re.compile(r"```python (\w+)\n(.*?)```", re.DOTALL)
LINE = re.compile(r"(.*?) +# (right|refused|fails|found)(?:: (.*))?")
FRAME = """from typing import Any
from connect_kv import Replicated, command, examples, query

class Rule(Replicated):
    def __init__(self) -> None:
        self.total: int = 0
        self.names: list[str] = ["b", "a"]
        self.by_name: dict[str, int] = {}
        self.best: Any = None
        INIT

    @command
    def run(self, x: int = 1) -> Any:
        COMMAND

    @query
    def ask(self) -> Any:
        QUERY

    METHOD
"""


class Rule(NamedTuple):
    """One line of an example."""

    place: str
    code: str
    verdict: str
    says: str


def rules() -> Iterator[Rule]:
    for place, block in RULES.findall(TEXT):
        before: list[str] = []
        for line in block.splitlines():
            found = LINE.fullmatch(line)
            if found is None:
                before.append(line)  # a decorator
            else:
                yield Rule(place, "\n    ".join([*before, found[1]]), found[2], found[3] or "")


def written(rule: Rule) -> str:
    parts = {"init": "", "command": "return None", "query": "return self.total", "method": ""}
    parts[rule.place] = f"@command\n    {rule.code}" if rule.place == "method" else rule.code
    text = FRAME
    for place, code in parts.items():
        text = text.replace(place.upper(), code)
    return text


def made(rule: Rule, number: int, directory: Path, patch: pytest.MonkeyPatch) -> type[Replicated]:
    """The class of a line, in a module that other processes can import."""
    (directory / f"rule_{number}.py").write_text(written(rule))
    patch.syspath_prepend(directory)
    machine: type[Replicated] = importlib.import_module(f"rule_{number}").Rule
    return machine


@pytest.mark.parametrize(
    ("number", "rule"),
    [
        pytest.param(number, rule, marks=[pytest.mark.long] if rule.verdict == "found" else [])
        for number, rule in enumerate(rules())
    ],
)
def test_a_line_is_what_the_page_says_of_it(
    number: int, rule: Rule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = made(rule, number, tmp_path, monkeypatch)
    if rule.verdict == "refused":
        with pytest.raises(ConfigError, match=re.escape(rule.says)):
            ReplicatedMachine(machine())
        return
    if rule.verdict == "found":
        with pytest.raises(Violation, match=re.escape(rule.says)):
            check_determinism(machine, calls=40)
        return
    hosted = ReplicatedMachine(machine())
    outcomes = [
        hosted.execute([MachineCall("run", data.encode({}), number, number)], None)[0] for number in (1, 2)
    ]
    if rule.verdict == "fails":
        assert isinstance(outcomes[0], CommandFailed)
        assert rule.says in f"{outcomes[0].type}: {outcomes[0].message}"
    else:
        assert not any(isinstance(one, CommandFailed) for one in outcomes)
        hosted.query("ask", data.encode({}), 3, None)
        hosted.restore(hosted.snapshot())


def test_each_rule_has_a_line_that_is_wrong() -> None:
    verdicts = [rule.verdict for rule in rules()]
    assert verdicts.count("right") >= 12
    assert len(verdicts) - verdicts.count("right") >= 12


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """An empty directory with the files of the page."""
    for name, text in FILE.findall(TEXT):
        (tmp_path / name).write_text(text)
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
def test_the_files_of_the_page_pass_their_tests(project: Path) -> None:
    done = run(project, "pytest", "-q", "-p", "no:cacheprovider", "-k", "not processes")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout


@pytest.mark.cluster
def test_the_test_with_processes_passes(project: Path) -> None:
    done = run(project, "pytest", "-q", "-p", "no:cacheprovider", "-k", "processes")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.cluster
def test_the_commands_of_the_page_work(project: Path) -> None:
    commands = re.findall(r"^connect-kv (simulate .*)$", TEXT, re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        done = run(project, "connect_kv.cli.main", *command.split())
        assert done.returncode == 0, done.stdout + done.stderr
        assert "OK" in done.stdout


@pytest.mark.long
def test_the_queue_of_the_page_works(project: Path) -> None:
    (project / "test_jobs.py").write_text(
        "from connect_kv import types\n"
        "from jobs import work\n\n\n"
        "def test_jobs(sim_cluster):\n"
        "    cluster = sim_cluster({'jobs': types.Queue})\n\n"
        "    async def scenario():\n"
        "        async with cluster.client() as client:\n"
        "            await work(client)\n\n"
        "    cluster.run(scenario())\n"
    )
    done = run(project, "pytest", "-q", "-p", "no:cacheprovider", "test_jobs.py")
    assert done.returncode == 0, done.stdout + done.stderr
