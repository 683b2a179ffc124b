"""The commands against a real node."""

from __future__ import annotations

import asyncio
import base64
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import grpc.aio
import pytest

from connect_kv.client.stubs import Stubs
from connect_kv.rpc.maintenance_pb2 import NOSPACE, AlarmRequest
from tests.cli.conftest import Cli

pytestmark = pytest.mark.cluster

T = TypeVar("T")


def test_keys(cluster: Cli) -> None:
    assert cluster("put", "greeting", "hello").out == "OK\n"
    assert cluster("get", "greeting").out == "greeting\nhello\n"
    assert cluster("put", "greeting", stdin="from stdin").out == "OK\n"
    assert cluster("get", "greeting", "--print-value-only").out == "from stdin\n"
    assert cluster("get", "gre", "--prefix", "--count-only").out == "1\n"
    found = cluster("get", "greeting", "-o", "json").json
    assert isinstance(found, dict)
    assert found["kvs"][0]["value"] == "from stdin"
    assert "greeting" in cluster("get", "greeting", "-o", "table").out
    assert cluster("del", "greeting").out == "1\n"
    assert cluster("get", "greeting").out == ""


def test_transaction(cluster: Cli) -> None:
    text = 'version("lock") = "0"\n\nput lock mine\n\nget lock\n'
    assert cluster("txn", stdin=text).out == "SUCCESS\n\nOK\n"
    assert cluster("txn", stdin=text).out == "FAILURE\n\nlock\nmine\n"
    found = cluster("-o", "json", "txn", stdin=text).json
    assert isinstance(found, dict)
    assert found["succeeded"] is False
    assert found["responses"][0]["range"]["kvs"][0]["value"] == "mine"


def test_watch(cluster: Cli) -> None:
    revision = _revision(cluster)
    cluster("put", "w", "1")
    cluster("del", "w")
    done = cluster("watch", "w", "--rev", str(revision + 1), "--count", "2")
    assert done.out == "PUT\nw\n1\nDELETE\nw\n"


def test_leases(cluster: Cli) -> None:
    granted = cluster("lease", "grant", "30", "-o", "json").json
    assert isinstance(granted, dict)
    id = granted["hex"]
    cluster("put", "leased", "v", "--lease", id)
    assert cluster("lease", "list").out == f"{id}\n"
    assert cluster("lease", "keep-alive", id, "--once").out == f"lease {id} kept alive with TTL 30 s\n"
    assert cluster("lease", "timetolive", id, "--keys").out.endswith("leased\n")
    assert cluster("lease", "revoke", id).out == f"lease {id} revoked\n"
    assert cluster("get", "leased").out == ""
    gone = cluster("lease", "timetolive", id)
    assert (gone.code, "expired or was revoked" in gone.err) == (1, True)


def test_machines(cluster: Cli) -> None:
    assert cluster("call", "counter", "increment", "by=5").out == "5\n"
    assert cluster("call", "counter", "value", "-o", "json").json == {"value": 5}
    assert "(by: int = ...) -> int" in cluster("call").out
    refused = cluster("call", "counter", "increment", "by=x")
    assert (refused.code, "by" in refused.err) == (1, True)
    assert cluster("call", "counter", "value").out == "5\n"


def test_compaction(cluster: Cli) -> None:
    cluster("put", "c", "1")
    cluster("put", "c", "2")
    revision = _revision(cluster)
    assert cluster("compact", str(revision)).out == f"compacted revision {revision}\n"
    old = cluster("get", "c", "--rev", str(revision - 1))
    assert (old.code, "compacted" in old.err) == (1, True)


def test_status(cluster: Cli) -> None:
    table = cluster("status")
    assert table.code == 0
    assert "leader" in table.out
    (row,) = _rows(cluster("status", "-o", "json").json)
    assert (row["name"], row["role"], row["lag"]) == ("n1", "leader", 0)


def test_alarms(cluster: Cli) -> None:
    assert (cluster("alarm", "list").code, cluster("alarm", "list").out) == (0, "")
    (row,) = _rows(cluster("status", "-o", "json").json)
    endpoint = cluster.environment["CONNECT_KV_ENDPOINTS"]
    id = str(row["id"])
    asyncio.run(_raise(endpoint, int(id, 16)))
    assert cluster("alarm", "list").out == f"{id} NOSPACE\n"
    assert cluster("alarm", "list", "-o", "json").json == [{"member": id, "alarm": "NOSPACE"}]
    assert cluster("alarm", "disarm", "1").out == ""
    assert cluster("alarm", "disarm", id).out == f"{id} NOSPACE\n"
    assert cluster("alarm", "list", "-o", "json").json == []


async def _raise(endpoint: str, id: int) -> None:
    async with grpc.aio.insecure_channel(endpoint) as channel:
        request = AlarmRequest(action=AlarmRequest.ACTIVATE, memberID=id, alarm=NOSPACE)
        await Stubs(channel).alarm(request, timeout=10)


def test_defrag_and_hash(cluster: Cli) -> None:
    endpoint = cluster.environment["CONNECT_KV_ENDPOINTS"]
    assert cluster("defrag").out.startswith(f"{endpoint}: ")
    (done,) = _rows(cluster("defrag", "-o", "json").json)
    assert (done["endpoint"], isinstance(done["after"], int)) == (endpoint, True)
    (first,) = _rows(cluster("hash", "-o", "json").json)
    revision = first["revision"]
    cluster("put", "hashed", "v")
    (second,) = _rows(cluster("hash", "-o", "json").json)
    assert second["hash"] != first["hash"]
    (again,) = _rows(cluster("hash", "--rev", str(revision), "-o", "json").json)
    assert again["hash"] == first["hash"]


def test_move_leader(cluster: Cli) -> None:
    (row,) = _rows(cluster("status", "-o", "json").json)
    assert cluster("move-leader", str(row["id"])).out == f"member {row['id']} leads\n"
    refused = cluster("move-leader", "badcafe")
    assert (refused.code, "bad leader transferee" in refused.err) == (1, True)


def test_a_running_node_is_not_inspected(cluster: Cli) -> None:
    done = cluster("inspect", "data/n1")
    assert done.code in (1, 2)
    assert done.out == ""
    assert len(done.err.strip().splitlines()) == 1


ANY = bytes(range(1, 256))
"""All that fits into an argument."""


def test_keys_and_values_of_any_bytes(cluster: Cli) -> None:
    """Words of the command line are bytes, and what is no text stays what it is."""
    key, value = os.fsdecode(b"k\xff" + ANY), os.fsdecode(ANY)
    revision = _revision(cluster)
    assert cluster("put", key, value).out == "OK\n"
    assert cluster("get", key).raw == b"k\xff" + ANY + b"\n" + ANY + b"\n"
    assert cluster("get", os.fsdecode(b"k\xff"), "--prefix", "--count-only").out == "1\n"
    seen = cluster("watch", os.fsdecode(b"k\xff"), "--prefix", "--rev", str(revision + 1), "--count", "1")
    assert seen.raw == b"PUT\nk\xff" + ANY + b"\n" + ANY + b"\n"
    found = cluster("get", key, "-o", "json").json
    assert isinstance(found, dict)
    assert base64.b64decode(found["kvs"][0]["value_base64"]) == ANY
    assert cluster("del", key).out == "1\n"


def test_digits_for_bytes_that_no_argument_can_hold(cluster: Cli) -> None:
    cluster("put", "--hex", "00ff", "ab00")
    assert cluster("get", "--hex", "00ff").out == "00ff\nab00\n"
    assert "00ff" in cluster("get", "--hex", "00ff", "-o", "table").out
    found = cluster("get", "--hex", "00", "--prefix", "-o", "json").json
    assert isinstance(found, dict)
    assert (found["kvs"][0]["key_hex"], found["kvs"][0]["value_hex"]) == ("00ff", "ab00")
    revision = _revision(cluster)
    assert (
        cluster("watch", "--hex", "00ff", "--rev", str(revision), "--count", "1").out == "PUT\n00ff\nab00\n"
    )
    assert cluster("txn", "--hex", stdin="value(00ff) = ab00\n\nget 00ff\n").out == "SUCCESS\n\n00ff\nab00\n"
    assert cluster("del", "--hex", "00ff").out == "1\n"
    wrong = cluster("get", "--hex", "0g")
    assert (wrong.code, "hexadecimal digits" in wrong.err) == (2, True)


def test_transactions_of_any_bytes(cluster: Cli) -> None:
    assert cluster("txn", stdin=b'\nput "a\\xff\\000" b\xfe\n').out == "SUCCESS\n\nOK\n"
    assert cluster("get", "--hex", "61ff00").out == "61ff00\n62fe\n"
    assert (
        cluster("txn", stdin=b'value("a\\xff\\000") = "b\\xfe"\n\ndel "a\\xff\\000"\n').out
        == "SUCCESS\n\n1\n"
    )


PROGRAM = [sys.executable, "-m", "connect_kv.cli.main"]


def test_a_lock_runs_a_command_and_says_who_holds_it(cluster: Cli) -> None:
    looks = (
        f"{shlex.join(PROGRAM)} lock job --list; echo $CONNECT_KV_LOCK_REVISION $CONNECT_KV_LOCK_KEY; exit 7"
    )
    done = cluster.process("lock", "job", "--note", "me", "--", "sh", "-c", looks)
    assert (done.code, done.err) == (7, "")
    held, environment = done.out.splitlines()
    assert held.startswith("holds me lease=")
    revision, key = environment.split()
    assert (int(revision) > 0, key.split("/")) == (True, ["job", held.rpartition("=")[2]])
    assert cluster("lock", "job", "--list", "-o", "json").json == []
    with _started(cluster, [*PROGRAM, "lock", "job", "--ttl", "5s"]) as first:
        assert first.stdout is not None
        assert first.stdout.readline().startswith("job/")
        with _started(cluster, [*PROGRAM, "lock", "job", "--note", "second"], ends=130):
            queue = _until(lambda: found if len(found := _queue(cluster)) == 2 else None)
    assert [row["state"] for row in queue] == ["holds", "waits"]
    assert [row["note"] for row in queue] == [f"{socket.gethostname()}:{first.pid}", "second"]
    assert _queue(cluster) == []


def test_a_command_that_cannot_be_run_waits_for_no_lock(cluster: Cli) -> None:
    done = cluster("lock", "job", "--", "no-such-command")
    assert (done.code, "no-such-command" in done.err) == (2, True)
    assert _queue(cluster) == []


def _queue(cluster: Cli) -> list[dict[str, object]]:
    return _rows(cluster("lock", "job", "--list", "-o", "json").json)


def test_an_election_has_a_leader_whom_others_see(cluster: Cli) -> None:
    with _started(cluster, [*PROGRAM, "elect", "chair", "ada"]) as leader:
        assert leader.stdout is not None
        key = leader.stdout.readline()
        assert key.startswith("chair/")
        assert leader.stdout.readline() == "ada\n"
        with _started(cluster, [*PROGRAM, "elect", "chair", "--listen"], ends=130) as observer:
            assert observer.stdout is not None
            assert [observer.stdout.readline(), observer.stdout.readline()] == [key, "ada\n"]


def test_health_of_endpoints(cluster: Cli) -> None:
    endpoint = cluster.environment["CONNECT_KV_ENDPOINTS"]
    assert cluster("endpoint", "health").out.startswith(f"{endpoint} is healthy: ")
    assert cluster("endpoint", "health", "--cluster").code == 0
    both = cluster("-e", f"{endpoint},127.0.0.1:1", "--timeout", "1s", "endpoint", "health", "-o", "json")
    assert both.code == 1
    assert [(row["endpoint"], row["healthy"]) for row in _rows(both.json)] == [
        (endpoint, True),
        ("127.0.0.1:1", False),
    ]


def test_a_snapshot_replaces_a_file_only_if_told_to(cluster: Cli) -> None:
    assert cluster("snapshot", "save", "one.db").code == 0
    again = cluster("snapshot", "save", "one.db")
    assert (again.code, "exists already" in again.err) == (1, True)
    assert cluster("snapshot", "save", "--force", "one.db").code == 0


def test_durations_are_written_as_people_do(cluster: Cli) -> None:
    granted = cluster("lease", "grant", "1m", "-o", "json").json
    assert isinstance(granted, dict)
    assert granted["ttl"] == 60
    assert cluster("lease", "revoke", granted["hex"]).code == 0
    assert cluster("--timeout", "1500ms", "get", "a").code == 0
    for words in (["--timeout", "0"], ["--timeout", "soon"], ["--timeout", "-1s"]):
        assert cluster(*words, "get", "a").code == 2
    refused = cluster("lease", "grant", "500ms")
    assert (refused.code, "whole number of s" in refused.err) == (2, True)


@contextmanager
def _started(cluster: Cli, words: list[str], *, ends: int = 0) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, text=True, cwd=cluster.directory, env=cluster.environment
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
        assert process.returncode == ends


def _until(look: Callable[[], T | None]) -> T:
    """The first answer; each look takes its time by itself."""
    deadline = time.monotonic() + 30
    while (found := look()) is None:
        assert time.monotonic() < deadline
    return found


def _revision(cluster: Cli) -> int:
    (row,) = _rows(cluster("status", "-o", "json").json)
    found = row["revision"]
    assert isinstance(found, int)
    return found


def _rows(found: object) -> list[dict[str, object]]:
    assert isinstance(found, list)
    return found
