"""Does what is stored beside the entries fit them? Each check raises ValueError naming what does not."""

from __future__ import annotations

from collections.abc import Sequence

from connect_kv.raft.types import Entry, Membership

Starts = list[tuple[int, int]]
"""(index, term), ascending: the first entry of each term in the log."""
Memberships = list[tuple[int, Membership]]
"""(index, Membership), ascending: the one where the log starts, then each in it."""


def check_records(first: int, last: int, starts: Starts, memberships: Memberships) -> None:
    """Of a log of entries ``[first, last]``."""
    if not memberships or memberships[0][0] != first - 1:
        raise ValueError(f"the membership at index {first - 1}, where the log starts, is missing")
    if memberships[-1][0] > last:
        raise ValueError(f"there is a membership of index {memberships[-1][0]}, and no such entry")
    if last >= first and (not starts or starts[0][0] != first):
        raise ValueError(f"the term of entry {first}, the first, is missing")
    if starts and starts[-1][0] > last:
        raise ValueError(f"a term starts at {starts[-1][0]}, and there is no such entry")


def check_terms(recent: Sequence[Entry], starts: Starts, term: int) -> None:
    """Of the end of a log, under the term last heard of."""
    expected = 0
    at = 0
    for entry in recent:
        while at < len(starts) and starts[at][0] <= entry.index:
            expected = starts[at][1]
            at += 1
        if entry.term != expected:
            raise ValueError(f"the term of entry {entry.index} is not the one recorded")
    if recent and recent[-1].term > term:
        raise ValueError(f"entry {recent[-1].index} is of a later term than was ever seen")
