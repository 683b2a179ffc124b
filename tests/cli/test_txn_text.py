"""The text form of a transaction."""

from __future__ import annotations

import pytest

from connect_kv import errors
from connect_kv.cli.txn_text import parse
from connect_kv.client import txn


def test_the_three_parts_are_told_apart_by_blank_lines() -> None:
    text = 'version("lock") = "0"\n\nput lock "my own"\nget a --prefix\n\ndel a b\n'
    compare, success, failure = parse(text.splitlines())
    assert compare == [txn.version("lock", "=", 0)]
    assert success == [txn.put("lock", "my own"), txn.get("a", prefix=True)]
    assert failure == [txn.delete("a", range_end="b")]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('value("a b") = "x y"', txn.value("a b", "=", "x y")),
        ("mod(k) > 5", txn.mod_revision("k", ">", 5)),
        ('create("k") != "0"', txn.create_revision("k", "!=", 0)),
        ('lease("k") = "1f"', txn.lease("k", "=", 31)),
        ('val("k")<z', txn.value("k", "<", "z")),
        (r'value("k") = "new\nline"', txn.value("k", "=", "new\nline")),
        (r"value('k') = 'new\nline'", txn.value("k", "=", r"new\nline")),
    ],
)
def test_conditions(line: str, expected: object) -> None:
    assert parse([line])[0] == [expected]


@pytest.mark.parametrize(
    ("line", "value"),
    [
        (r'put k "two\nlines\t\"quoted\" \\"', 'two\nlines\t"quoted" \\'),
        (r"put k 'as \n it is'", r"as \n it is"),
        (r"put k two\ words", "two words"),
        ('put k one" and "more', "one and more"),
    ],
)
def test_words_are_quoted_as_for_etcdctl(line: str, value: str) -> None:
    assert parse(["", line])[1] == [txn.put("k", value)]


@pytest.mark.parametrize(
    "text",
    ["nonsense", 'version("k") = "x"', "age(k) = 1", "\nput a", "\nput a b c", "\n\nfly", '\nput a "b'],
)
def test_what_cannot_be_read_is_named_by_line(text: str) -> None:
    with pytest.raises(errors.ConfigError, match=r"line \d"):
        parse(text.split("\n"))


def test_without_conditions_the_first_part_is_empty() -> None:
    assert parse(["", "put a b"]) == ([], [txn.put("a", "b")], [])
