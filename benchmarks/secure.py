"""Loads over TLS, as a user with a token, beside etcd with the same."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import grpc.aio
from google.protobuf.message import Message

from benchmarks import loads
from benchmarks.figures import Figures
from benchmarks.run import BenchmarkRun
from benchmarks.systems import ConnectKv, Etcd, KeyValueSystem
from connect_kv.authority import make_authority, make_node
from connect_kv.bench.access import BenchAccess
from connect_kv.credentials import Tls
from connect_kv.rpc import auth_pb2 as auth
from connect_kv.testing.ports import free_ports

PASSWORD = "benchmark"
BCRYPT = ("--bcrypt-cost", "4")
"""Of both: logging in is not what is measured."""


class SecureConnectKv(ConnectKv):
    """This, over TLS with clients, who are users."""

    def __init__(self, directory: Path, certs: Path) -> None:
        files = ("--cert-file", str(certs / "n.pem"), "--key-file", str(certs / "n.key"))
        super().__init__(directory, arguments=(*files, "--http-tls", "off", *BCRYPT))
        self.scheme = "https"
        self.access = BenchAccess(tls=Tls(ca=certs / "ca.pem"))


class SecureEtcd(Etcd):
    """An etcd cluster with TLS and users."""

    def __init__(self, directory: Path, program: str, certs: Path) -> None:
        super().__init__(directory, program)
        self.scheme = "https"
        self.access = BenchAccess(tls=Tls(ca=certs / "ca.pem"))
        self._metrics = [f"127.0.0.1:{port}" for port in free_ports(len(self._servers))]
        for server, metrics in zip(self._servers, self._metrics, strict=True):
            server.scheme = "https"
            server.arguments = (
                *("--cert-file", str(certs / "n.pem"), "--key-file", str(certs / "n.key")),
                *("--listen-metrics-urls", f"http://{metrics}", *BCRYPT),
            )

    @property
    def metrics_addresses(self) -> list[str]:
        """Where metrics are read without TLS."""
        return self._metrics


async def secure(run: BenchmarkRun) -> None:
    """Unary puts and gets over TLS with a token (etcd 3.5.1 speaks TLS 1.2 at most), handshakes, sessions."""
    certs = run.directory / "certs"
    make_authority(certs)
    make_node(certs, "n", ["127.0.0.1", "localhost"])
    async with (
        SecureConnectKv(run.directory / "ours", certs) as ours,
        SecureEtcd(run.directory / "etcd", run.etcd, certs) as theirs,
    ):
        for system in (ours, theirs):
            await system.leader_first()
            await found_users(system)
        for callers in (100, 1000):
            for system in (ours, theirs):
                puts = loads.unary(
                    system, "Put", loads.put_body(), callers=callers, total=run.some(20 * callers, least=2000)
                )
                await run.attempt(f"TLS and token: unary put {callers}", system, puts)
        for system in (ours, theirs):
            gets = loads.unary(system, "Range", loads.range_body(), callers=1000, total=run.some(20_000))
            await run.attempt("TLS and token: unary get 1000", system, gets)
        for system in (ours, theirs):
            await run.attempt(
                "TLS and token: handshakes", system, handshakes(system, run.some(1500, least=300))
            )
        shown = ("--cacert", str(certs / "ca.pem"), "--user", f"root:{PASSWORD}")
        counts = ("--callers", "1000", "--clients", "1", "--total", str(run.some(60_000)), *shown)
        await run.attempt("TLS and token: session put 1000", ours, loads.bench(ours, "put", *counts))


async def handshakes(system: KeyValueSystem, total: int) -> Figures:
    """So many connections at once, each for one get."""
    load = await loads.offer(system, "Range", loads.range_body(), callers=total, total=total, streams=1)
    figures = {"rate": load.served / load.seconds, **loads.percentiles(load.latencies)}
    return {**figures, "cpu": load.cpu / load.served * 1000}


async def found_users(system: KeyValueSystem) -> None:
    """root, by etcd's names; authentication on, and the token of a login beside each call from now on."""
    (made,) = system.access.channels(system.addresses[:1])
    steps: Mapping[str, Message] = {
        "UserAdd": auth.AuthUserAddRequest(name="root", password=PASSWORD),
        "RoleAdd": auth.AuthRoleAddRequest(name="root"),
        "UserGrantRole": auth.AuthUserGrantRoleRequest(user="root", role="root"),
        "AuthEnable": auth.AuthEnableRequest(),
    }
    async with made as channel:
        for name, request in steps.items():
            call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
                f"/etcdserverpb.Auth/{name}"
            )
            await call(request.SerializeToString(), timeout=10)
        system.access = BenchAccess(tls=system.access.tls, user="root", password=PASSWORD)
        ((_, token),) = await system.access.metadata(channel)
    system.headers = (f"token: {token}",)
