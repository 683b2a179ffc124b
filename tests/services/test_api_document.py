"""docs/api.md names every call of etcd's services, and says of each what is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from connect_kv.frontend.grpc.router import ETCD_NAMES
from connect_kv.rpc import (
    auth_pb2,
    cluster_pb2,
    election_pb2,
    kv_pb2,
    lease_pb2,
    lock_pb2,
    maintenance_pb2,
    watch_pb2,
)
from connect_kv.services.auth import AuthService
from connect_kv.services.cluster import ClusterService
from connect_kv.services.election import ElectionService
from connect_kv.services.kv import KvService
from connect_kv.services.lease import LeaseService
from connect_kv.services.lock import LockService
from connect_kv.services.maintenance import MaintenanceService
from connect_kv.services.watch import WatchService

DOCUMENT = Path(__file__).parents[2] / "docs" / "api.md"
SERVED: dict[str, tuple[object, type]] = {
    "KV": (kv_pb2, KvService),
    "Watch": (watch_pb2, WatchService),
    "Lease": (lease_pb2, LeaseService),
    "Cluster": (cluster_pb2, ClusterService),
    "Maintenance": (maintenance_pb2, MaintenanceService),
    "Lock": (lock_pb2, LockService),
    "Election": (election_pb2, ElectionService),
    "Auth": (auth_pb2, AuthService),
}


def states() -> dict[str, dict[str, str]]:
    """By service and call, as the table has it."""
    found: dict[str, dict[str, str]] = {}
    calls: dict[str, str] = {}
    for line in DOCUMENT.read_text().splitlines():
        if heading := re.match(r"\| \*\*(\w+)\*\*", line):
            calls = found.setdefault(heading[1], {})
        elif row := re.match(r"\| ([\w, ]+?) \| (done|differs|not yet|refused) \|", line):
            calls.update(dict.fromkeys(row[1].split(", "), row[2]))
    return found


@pytest.mark.parametrize("service", SERVED)
def test_every_call_is_listed_as_it_is(service: str) -> None:
    module, servicer = SERVED[service]
    methods = vars(module)["DESCRIPTOR"].services_by_name[service].methods_by_name
    listed = states()[service]
    assert set(listed) == set(methods)
    served = {name for name, state in listed.items() if state in ("done", "differs")}
    assert served == {name for name in methods if hasattr(servicer, name)}


def test_services_that_are_not_served_are_listed() -> None:
    assert {*ETCD_NAMES, "Auth"} <= set(states())
