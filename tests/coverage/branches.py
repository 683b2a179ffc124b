"""Branches by the text of their lines, which outlives changes elsewhere; and the list of the page."""

from __future__ import annotations

import ast
import io
import json
import re
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path
from typing import NamedTuple

import coverage

ROOT = Path(__file__).parent.parent.parent
PACKAGES = ("connect_kv/raft", "connect_kv/storage", "connect_kv/node")
PAGE = ROOT / "docs" / "coverage.md"
ROW = re.compile(r"^\| `(connect_kv/[^`]+)` \| `([^`]+)` \| ``(.+?)`` \| ``(.+?)`` \|", re.MULTILINE)


class Branch(NamedTuple):
    """From the line with a condition to the line that follows it there, or to the end of the function."""

    file: str
    function: str
    condition: str
    to: str

    def row(self) -> str:
        """As a row of the page's tables, without its reason."""
        condition, to = (text.replace("|", "\\|") for text in (self.condition, self.to))
        return f"| `{self.file}` | `{self.function}` | ``{condition}`` | ``{to}`` |"

    def order(self) -> tuple[str, str, str, str]:
        """For sorting."""
        return self


def listed() -> Counter[Branch]:
    """What the page lists."""
    return Counter(
        Branch(*(part.replace("\\|", "|") for part in match.groups()))
        for match in ROW.finditer(PAGE.read_text())
    )


def missed(files: Sequence[Path]) -> tuple[Counter[Branch], int]:
    """What no test of these measurements reached, and the number of all branches."""
    with tempfile.TemporaryDirectory() as directory:
        combined = coverage.Coverage(data_file=str(Path(directory) / "all"), config_file=False, branch=True)
        combined.combine([str(file) for file in files], keep=True)
        with redirect_stdout(io.StringIO()):
            combined.json_report(outfile=str(Path(directory) / "json"))
        report = json.loads((Path(directory) / "json").read_text())
    found: Counter[Branch] = Counter()
    for file, figures in report["files"].items():
        for origin, target in figures["missing_branches"]:
            found[branch(file, origin, target)] += 1
    return found, report["totals"]["num_branches"]


def branch(file: str, origin: int, target: int) -> Branch:
    """As coverage counts it, by the numbers of its lines; below 0: out of the function."""
    lines = (ROOT / file).read_text().splitlines()
    to = lines[target - 1].strip() if target > 0 else "the end"
    return Branch(file, _function(file, origin), lines[origin - 1].strip(), to)


def _function(file: str, line: int) -> str:
    """The name of the innermost function or class around that line."""
    around = [(first, name) for first, last, name in _functions(file) if first <= line <= last]
    return max(around)[1] if around else "module"


@cache
def _functions(file: str) -> list[tuple[int, int, str]]:
    found = []

    def walk(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                name = f"{prefix}{child.name}"
                found.append((child.lineno, child.end_lineno or child.lineno, name))
                walk(child, f"{name}.")
            else:
                walk(child, prefix)

    walk(ast.parse((ROOT / file).read_text()), "")
    return found
