"""Each test of the protocol says which rule it holds, and where the paper or the thesis has it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

RAFT = Path(__file__).parent.parent / "raft"

PAPER = {"5.1", "5.2", "5.3", "5.4", "5.4.1", "5.4.2", "5.4.3", "5.5", "5.6", "6", "7", "8"}
"""Sections of "In Search of an Understandable Consensus Algorithm", extended version, with rules."""

THESIS = {
    *("3.3", "3.4", "3.5", "3.6", "3.6.1", "3.6.2", "3.6.3", "3.7", "3.8", "3.9", "3.10"),
    *("4.1", "4.2.1", "4.2.2", "4.2.3", "4.2.4", "4.3", "5.1", "5.2", "6.2", "6.3", "6.4", "6.4.1"),
    *("9.6", "10.2.1", "10.2.2"),
}
"""Those of "Consensus: Bridging Theory and Practice"."""

SECTION = re.compile(r"(§|[Tt]hesis )?(\d+(?:\.\d+)*)")


def rules() -> Iterator[tuple[str, str, str | None]]:
    """(file, test, docstring) of each test of the protocol."""
    for path in sorted(RAFT.glob("test_*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                yield path.name, node.name, ast.get_docstring(node)


def what_is_missing(docstring: str | None) -> str | None:
    """What keeps a reader from finding the rule; None where nothing does."""
    if not docstring:
        return "no docstring"
    where, colon, rule = docstring.partition(": ")
    if not colon or len(rule.split()) < 5:
        return "not a section, a colon and a rule"
    book, sections = "", SECTION.findall(where.split(", Figure")[0])
    for mark, number in sections:
        book = mark.lower() or book
        if number not in (PAPER if book == "§" else THESIS):
            return f"there is no rule in {book}{number}"
    return None if book else "no section"


def test_each_raft_test_states_its_rule_and_the_section() -> None:
    wrong = {f"{file}::{test}": what_is_missing(text) for file, test, text in rules()}
    assert len(wrong) > 100
    assert not {test: why for test, why in wrong.items() if why}


def test_no_two_raft_tests_state_one_rule() -> None:
    stated = [text.partition("\n\n")[0] for _, _, text in rules() if text]
    assert len(stated) == len(set(stated))


@pytest.mark.parametrize(
    "docstring",
    [
        None,
        "Votes are counted once.",
        "§5.2: yes.",
        "§5.9: no section of the paper has this number.",
        "Rule: one two three four five.",
    ],
)
def test_a_docstring_without_a_rule_or_its_section_is_found(docstring: str | None) -> None:
    assert what_is_missing(docstring)
