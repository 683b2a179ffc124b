"""The commands against a real node."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Cli

pytestmark = pytest.mark.cluster


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


def test_a_running_node_is_not_inspected(cluster: Cli) -> None:
    done = cluster("inspect", "data/n1")
    assert done.code in (1, 2)
    assert done.out == ""
    assert len(done.err.strip().splitlines()) == 1


def _revision(cluster: Cli) -> int:
    (row,) = _rows(cluster("status", "-o", "json").json)
    found = row["revision"]
    assert isinstance(found, int)
    return found


def _rows(found: object) -> list[dict[str, object]]:
    assert isinstance(found, list)
    return found
