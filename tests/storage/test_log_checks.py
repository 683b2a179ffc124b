"""A log's records fit together, or what does not is named."""

from __future__ import annotations

import pytest

from connect_kv.storage.log_checks import Memberships, Starts, check_records, check_terms
from tests.storage.helpers import commands, voters

MEMBERSHIPS: Memberships = [(4, voters(1)), (6, voters(1, 2))]
STARTS: Starts = [(5, 1), (7, 2)]


def test_what_fits_together_is_taken() -> None:
    check_records(5, 8, STARTS, MEMBERSHIPS)
    check_records(5, 4, [], MEMBERSHIPS[:1])
    check_terms((*commands(1, 5, 7), *commands(2, 7, 9)), STARTS, 2)


@pytest.mark.parametrize(
    ("first", "last", "starts", "memberships", "what"),
    [
        (5, 8, STARTS, [], "where the log starts, is missing"),
        (5, 8, STARTS, MEMBERSHIPS[1:], "where the log starts, is missing"),
        (5, 5, STARTS[:1], MEMBERSHIPS, "a membership of index 6"),
        (5, 8, [], MEMBERSHIPS, "term of entry 5"),
        (5, 8, STARTS[1:], MEMBERSHIPS, "term of entry 5"),
        (5, 6, STARTS, MEMBERSHIPS, "a term starts at 7"),
    ],
)
def test_records_that_do_not_are_named(
    first: int, last: int, starts: Starts, memberships: Memberships, what: str
) -> None:
    with pytest.raises(ValueError, match=what):
        check_records(first, last, starts, memberships)


def test_an_entry_of_another_term_than_recorded_or_than_was_ever_seen_is_named() -> None:
    with pytest.raises(ValueError, match="entry 7 is not the one recorded"):
        check_terms(commands(1, 5, 9), STARTS, 2)
    with pytest.raises(ValueError, match="later term than was ever seen"):
        check_terms((*commands(1, 5, 7), *commands(2, 7, 9)), STARTS, 1)
