"""The commands against a real node."""

from __future__ import annotations

import asyncio

import grpc.aio
import pytest

from connect_kv.client.stubs import Stubs
from connect_kv.rpc.maintenance_pb2 import NOSPACE, AlarmRequest
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


def _revision(cluster: Cli) -> int:
    (row,) = _rows(cluster("status", "-o", "json").json)
    found = row["revision"]
    assert isinstance(found, int)
    return found


def _rows(found: object) -> list[dict[str, object]]:
    assert isinstance(found, list)
    return found
