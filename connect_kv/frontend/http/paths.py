"""Which path of etcd's gateway leads to which method; ours follow from their names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from google.protobuf.descriptor import MethodDescriptor

from connect_kv.frontend.grpc.router import ETCD_NAMES
from connect_kv.frontend.grpc.services import SERVICES

OURS = "/connect_kv/v1/"

_ETCD: Mapping[str, str] = {
    "kv/range": "KV/Range",
    "kv/put": "KV/Put",
    "kv/deleterange": "KV/DeleteRange",
    "kv/txn": "KV/Txn",
    "kv/compaction": "KV/Compact",
    "watch": "Watch/Watch",
    "lease/grant": "Lease/LeaseGrant",
    "lease/revoke": "Lease/LeaseRevoke",
    "kv/lease/revoke": "Lease/LeaseRevoke",
    "lease/keepalive": "Lease/LeaseKeepAlive",
    "lease/timetolive": "Lease/LeaseTimeToLive",
    "kv/lease/timetolive": "Lease/LeaseTimeToLive",
    "lease/leases": "Lease/LeaseLeases",
    "kv/lease/leases": "Lease/LeaseLeases",
    "cluster/member/add": "Cluster/MemberAdd",
    "cluster/member/remove": "Cluster/MemberRemove",
    "cluster/member/update": "Cluster/MemberUpdate",
    "cluster/member/list": "Cluster/MemberList",
    "cluster/member/promote": "Cluster/MemberPromote",
    "maintenance/alarm": "Maintenance/Alarm",
    "maintenance/status": "Maintenance/Status",
    "maintenance/defragment": "Maintenance/Defragment",
    "maintenance/hash": "Maintenance/Hash",
    "maintenance/hashkv": "Maintenance/HashKV",
    "maintenance/snapshot": "Maintenance/Snapshot",
    "maintenance/transfer-leadership": "Maintenance/MoveLeader",
    "maintenance/downgrade": "Maintenance/Downgrade",
    "auth/enable": "Auth/AuthEnable",
    "auth/disable": "Auth/AuthDisable",
    "auth/status": "Auth/AuthStatus",
    "auth/authenticate": "Auth/Authenticate",
    "auth/user/add": "Auth/UserAdd",
    "auth/user/get": "Auth/UserGet",
    "auth/user/list": "Auth/UserList",
    "auth/user/delete": "Auth/UserDelete",
    "auth/user/changepw": "Auth/UserChangePassword",
    "auth/user/grant": "Auth/UserGrantRole",
    "auth/user/revoke": "Auth/UserRevokeRole",
    "auth/role/add": "Auth/RoleAdd",
    "auth/role/get": "Auth/RoleGet",
    "auth/role/list": "Auth/RoleList",
    "auth/role/delete": "Auth/RoleDelete",
    "auth/role/grant": "Auth/RoleGrantPermission",
    "auth/role/revoke": "Auth/RoleRevokePermission",
    "lock/lock": "Lock/Lock",
    "lock/unlock": "Lock/Unlock",
    "election/campaign": "Election/Campaign",
    "election/proclaim": "Election/Proclaim",
    "election/leader": "Election/Leader",
    "election/observe": "Election/Observe",
    "election/resign": "Election/Resign",
}


@dataclass(frozen=True, slots=True)
class Target:
    """What a path leads to."""

    route: str
    """The method's full name, as gRPC calls it."""
    method: MethodDescriptor


def name_of(target: Target) -> str:
    """The method as the audit log calls it: ``Service.Method``."""
    return f"{target.method.containing_service.name}.{target.method.name}"


def targets() -> dict[str, Target]:
    """By path: etcd's, and for every method of every service ``/connect_kv/v1/service/method``."""
    found: dict[str, Target] = {}
    methods: dict[str, MethodDescriptor] = {}
    for service in SERVICES:
        for method in service.methods:
            methods[f"{service.name}/{method.name}"] = method
            path = f"{OURS}{service.name}/{method.name}".lower()
            found[path] = Target(f"/{service.full_name}/{method.name}", method)
    for path, full in _ETCD.items():
        name, _, short = full.partition("/")
        found[f"/v3/{path}"] = Target(f"/{ETCD_NAMES[name]}/{short}", methods[full])
    return found
