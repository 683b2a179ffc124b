"""What scripts/coverage does: runs the tests with coverage, and compares what they miss with the list."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

from tests.coverage.branches import PACKAGES, ROOT, Branch, listed, missed

DATA = ROOT / ".coverage-data"
GROUPS = {
    "raft": ["tests/raft", "tests/scenarios"],
    "storage": ["tests/storage", "tests/contract"],
    "node": ["tests/node"],
    "machines": ["tests/statemachine", "tests/framework", "tests/transport"],
    "kv": ["tests/kv"],
    "api": ["tests/services", "tests/client", "tests/cli", "tests/testing"],
    "fuzz": ["tests/fuzz"],
    "sim": ["tests/simulation"],
}
LEFT_OUT = {
    "tests/simulation/test_planted_bugs.py": "a bug that is planted reaches what must not be reached",
    "tests/simulation/test_linearizability.py": "none of the code in question",
    "tests/fuzz/test_records.py::test_looking_for_whole_records_in_a_tail_ends_soon": "measures time",
    "tests/fuzz/test_records.py::test_a_manifest_with_an_endless_number_is_refused_at_once": "measures time",
}
"""Tests that do not count here, and why."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"of {', '.join(GROUPS)}")
    parser.add_argument("--report", action="store_true", help="run nothing, compare what was found before")
    options = parser.parse_args()
    if strange := sorted(set(options.groups) - set(GROUPS)):
        parser.error(f"there are no {', '.join(strange)}")
    if not options.report:
        for group in options.groups or GROUPS:
            if status := run(group):
                print(f"{group}: pytest ended with {status}", file=sys.stderr)
                return 2
    return compare()


def run(group: str) -> int:
    """The tests of a group, in a process of their own."""
    DATA.mkdir(exist_ok=True)
    print(f"== {group}", flush=True)
    left_out = [f"--deselect={test}" for test in LEFT_OUT]
    only = ",".join(f"{package}/*" for package in PACKAGES)
    return subprocess.call(
        [sys.executable, "-m", "coverage", "run", "--rcfile=/dev/null", "--branch", f"--include={only}",
         "-m", "pytest", "-q", "-p", "no:cacheprovider", *left_out, *GROUPS[group]],
        cwd=ROOT,
        env={**os.environ, "COVERAGE_FILE": str(DATA / group)},
    )  # fmt: skip


def compare() -> int:
    """Print how what the tests miss differs from the list; 1 if it does."""
    missing = [group for group in GROUPS if not (DATA / group).exists()]
    if missing:
        print(f"not measured yet: {', '.join(missing)}", file=sys.stderr)
        return 2
    found, total = missed([DATA / group for group in GROUPS])
    known = listed()
    for title, branches in (
        ("reached by no test, and not listed", found - known),
        ("listed, and reached by a test, or gone", known - found),
    ):
        if branches:
            print(f"\n{title}:")
            for branch in sorted(branches.elements(), key=Branch.order):
                print(branch.row())
    print(f"\n{total} branches, {found.total()} reached by no test, {known.total()} of these listed")
    return 0 if found == known else 1


if __name__ == "__main__":
    sys.exit(main())
