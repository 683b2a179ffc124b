"""``connect-kv bench``: it says what failed, and refuses what means nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from connect_kv.bench import targets, workloads
from connect_kv.cli.bench import OPTIONS, STREAMED
from tests.cli.conftest import Cli, Finished


def run(cluster: Cli, *words: str) -> tuple[Finished, dict[str, Any]]:
    done = cluster("bench", *words, "-o", "json")
    return done, json.loads(done.out)


@pytest.mark.parametrize("door", ["session", "unary"])
@pytest.mark.parametrize("workload", ["put", "mixed", "txn"])
def test_writes_are_checked_against_revisions(cluster: Cli, workload: str, door: str) -> None:
    done, found = run(cluster, workload, "--total", "60", "--callers", "5", "--door", door)
    assert (done.code, found["operations"], found["errors"]) == (0, 60, {})
    assert 0 < found["acknowledged_writes"] == found["revisions_made"]


def test_watchers_hear_of_every_put(cluster: Cli) -> None:
    done, found = run(cluster, "watch", "--watchers", "15", "--total", "20", "--value-size", "100")
    assert (done.code, found["operations"], found["errors"]) == (0, 300, {})


def test_leases_are_renewed(cluster: Cli) -> None:
    done, found = run(cluster, "lease-keep-alive", "--callers", "5", "--total", "40")
    assert (done.code, found["operations"], found["errors"]) == (0, 40, {})


@pytest.mark.parametrize(
    "words",
    [
        ("put", "--door", "unary", "--value-size", "1700000"),
        ("watch", "--watchers", "2", "--value-size", "1700000"),
    ],
)
def test_operations_that_fail_are_counted_and_the_code_is_1(cluster: Cli, words: tuple[str, ...]) -> None:
    done, found = run(cluster, *words, "--total", "3")
    assert (done.code, found["operations"]) == (1, 0)
    assert sum(found["errors"].values()) == 3


@pytest.mark.parametrize(
    "words",
    [
        ("watch", "--door", "unary"),
        ("watch", "--key-space", "3"),
        ("lease-keep-alive", "--rate", "5"),
        ("lease-keep-alive", "--clients", "2"),
        ("txn", "--key-space", "3"),
        ("put", "--watchers", "3"),
        ("counter", "--value-size", "3"),
    ],
)
def test_options_without_a_meaning_are_refused_by_name(cli: Cli, words: tuple[str, ...]) -> None:
    done = cli("bench", *words)
    assert done.code == 2
    assert f"{words[1]} means nothing to {words[0]}" in done.err


@pytest.mark.parametrize(
    "words", [("put", "--door", "unary"), ("watch",), ("lease-keep-alive",)], ids=lambda words: words[0]
)
def test_a_member_that_does_not_answer_is_named(
    cli: Cli, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets, "READY_SECONDS", 0.2)
    done = cli("bench", *words, "-e", "127.0.0.1:1")
    assert done.code == 1
    assert "127.0.0.1:1 did not answer" in done.err


def test_every_workload_says_what_it_takes() -> None:
    assert set(OPTIONS) == {*workloads.NAMES, *STREAMED}
