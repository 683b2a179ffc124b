"""One member that is abused, and what that does to everybody else: ``python -m tests.figures.abuse``.

Puts of one caller, one at a time, before, while and after others open connections and say nothing, guess
passwords, or read no answers; and the memory that the member takes. On one machine attackers take processors
from the member, too, though they give way to it.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

import connect_kv
from connect_kv.authority import make_authority, make_node
from connect_kv.credentials import Tls
from connect_kv.rpc.auth_pb2 import AuthenticateRequest, AuthenticateResponse
from connect_kv.rpc.kv_pb2 import PutRequest, PutResponse
from connect_kv.testing.processes import NodeProcess, ProcessCluster

PASSWORD = "pw"
MOST = {"half_open": 10_000, "wrong_logins": 1_000_000, "watchers": 200, "answers": 100}
"""How many connections, or logins."""
SECONDS = {"half_open": 15.0, "wrong_logins": 600.0, "watchers": 30.0, "answers": 20.0}
"""At most."""
QUIET_SECONDS = 8.0


class Prober:
    """One caller in a thread of its own."""

    def __init__(self, channel: grpc.Channel, token: str) -> None:
        self._put = channel.unary_unary(
            "/etcdserverpb.KV/Put",
            request_serializer=PutRequest.SerializeToString,
            response_deserializer=PutResponse.FromString,
        )
        self._token = token
        self._over = False
        self.took: list[tuple[float, float]] = []
        """When a put began, and for how long it lasted, in seconds."""
        self.failed: list[str] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._over:
            began = time.monotonic()
            try:
                self._put(
                    PutRequest(key=b"probe", value=b"v" * 256), timeout=30, metadata=(("token", self._token),)
                )
            except grpc.RpcError as error:
                self.failed.append(str(error))
            self.took.append((began, time.monotonic() - began))
            time.sleep(0.002)

    def stop(self) -> None:
        self._over = True
        self._thread.join()

    def between(self, begin: float, end: float) -> list[float]:
        """Of the puts that began then, how long they took, sorted."""
        return sorted(took for began, took in self.took if begin <= began < end)


@dataclass
class Outcome:
    """Of one attack."""

    kind: str
    said: str
    p99: Mapping[str, float] = field(default_factory=dict)
    """Milliseconds, before, while, after."""
    median: Mapping[str, float] = field(default_factory=dict)
    memory: Mapping[str, float] = field(default_factory=dict)
    """MiB that are resident, before, at most, after."""
    failed: Sequence[str] = ()
    """Puts of the other caller that failed."""
    processor: float = 0.0
    """Seconds that the member used meanwhile, less what it uses in such a time otherwise."""

    def row(self) -> str:
        def cells(found: Mapping[str, float]) -> str:
            return " / ".join(f"{one:.1f}" for one in found.values())

        ratio = self.p99["while"] / self.p99["before"]
        return (
            f"| {self.kind}: {self.said} | {cells(self.median)} | {cells(self.p99)} | {ratio:.1f} |"
            f" {cells(self.memory)} | {self.processor:.1f} | {len(self.failed)} |"
        )


@asynccontextmanager
async def abused(directory: Path, *, secure: bool) -> AsyncIterator[tuple[NodeProcess, Tls | None]]:
    """One member, authentication on; root's password is PASSWORD. `directory` is there."""
    arguments, tls = ["--bcrypt-cost", "8", "--audit-log", str(directory / "audit.jsonl")], None
    if secure:
        certs = directory / "certs"
        make_authority(certs)
        make_node(certs, "n", ["127.0.0.1"])
        arguments += ["--cert-file", str(certs / "n.pem"), "--key-file", str(certs / "n.key")]
        arguments += ["--http-tls", "off"]
        tls = Tls(ca=certs / "ca.pem")
    async with ProcessCluster(directory, 1, arguments=arguments, tls=tls) as cluster:
        (node,) = cluster.nodes
        async with cluster.client(session=False) as client:
            await client.put("large", b"x" * (1 << 20))
            await client.auth.add_user("root", PASSWORD)
            await client.auth.grant_role("root", "root")
            await client.auth.enable()
        yield node, tls


def channel_to(node: NodeProcess, tls: Tls | None) -> grpc.Channel:
    if tls is None:
        return grpc.insecure_channel(node.client_address)
    assert tls.ca is not None
    return grpc.secure_channel(node.client_address, grpc.ssl_channel_credentials(Path(tls.ca).read_bytes()))


def login(channel: grpc.Channel) -> str:
    call: Any = channel.unary_unary(
        "/etcdserverpb.Auth/Authenticate",
        request_serializer=AuthenticateRequest.SerializeToString,
        response_deserializer=AuthenticateResponse.FromString,
    )
    token: str = call(AuthenticateRequest(name="root", password=PASSWORD), timeout=30).token
    return token


async def attack(
    directory: Path, kind: str, count: int, seconds: float, quiet: float = QUIET_SECONDS
) -> Outcome:
    """One kind of abuse of one member."""
    async with abused(directory, secure=kind == "half_open") as (node, tls):
        channel = channel_to(node, tls)
        token = await asyncio.to_thread(login, channel)
        prober = Prober(channel, token)
        memory = {"before": 0.0, "at most": 0.0, "after": 0.0}
        await asyncio.sleep(1)
        marks = [time.monotonic()]
        used = [node.processor_seconds()]
        await asyncio.sleep(quiet)
        used.append(node.processor_seconds())
        memory["before"] = memory["at most"] = resident(node)
        attacker = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.figures.attackers", kind, node.client_address, str(count),
            str(seconds), token, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert attacker.stdout is not None
        writer = None
        try:
            await attacker.stdout.readline()
            marks.append(time.monotonic())
            if kind == "watchers":
                writer = asyncio.create_task(write_the_watched(node, tls))
            over = asyncio.create_task(attacker.stdout.read())
            while not over.done():
                memory["at most"] = max(memory["at most"], resident(node))
                await asyncio.wait([over], timeout=0.1)
            said = (await over).decode().strip()
            marks.append(time.monotonic())
            used.append(node.processor_seconds())
        finally:
            if writer is not None:
                writer.cancel()
            if attacker.returncode is None:
                attacker.kill()
            await attacker.wait()
        await asyncio.sleep(2)
        marks.append(time.monotonic())
        await asyncio.sleep(quiet)
        memory["after"] = resident(node)
        marks.append(time.monotonic())
        await asyncio.to_thread(prober.stop)
        channel.close()
        usually = (used[1] - used[0]) / (marks[1] - marks[0]) * (marks[2] - marks[1])
        outcome = Outcome(kind, said, memory=memory, failed=prober.failed)
        outcome.processor = used[2] - used[1] - usually
        parts = {"before": marks[:2], "while": marks[1:3], "after": marks[3:5]}
        found = {name: prober.between(*part) for name, part in parts.items()}
        outcome.p99 = {name: at(took, 0.99) for name, took in found.items()}
        outcome.median = {name: at(took, 0.5) for name, took in found.items()}
        return outcome


def at(took: Sequence[float], part: float) -> float:
    """Milliseconds."""
    assert took, "no put was made"
    return 1000 * took[min(int(part * len(took)), len(took) - 1)]


async def write_the_watched(node: NodeProcess, tls: Tls | None) -> None:
    """A hundred puts of ten kilobytes a second, for ever."""
    async with connect_kv.connect(
        node.client_address, tls=tls, user="root", password=PASSWORD, session=False
    ) as client:
        while True:
            await client.put("hot", b"h" * 10_000)
            await asyncio.sleep(0.01)


def resident(node: NodeProcess) -> float:
    """MiB."""
    return node.memory()["VmRSS"] / (1 << 20)


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", help=f"of {', '.join(MOST)}; default: all")
    parser.add_argument("--scale", type=float, default=1.0, help="of how many")
    options = parser.parse_args()
    print(
        "Of a put: ms before / while / after; of the member: MiB that are resident, before / at most / after"
    )
    print("| attack | median | p99 | times | memory | processor seconds | failed puts |")
    print("|---|---|---|---|---|---|---|")
    for kind in options.kinds or MOST:
        count = int(MOST[kind] * options.scale)
        seconds = max(6.0, SECONDS[kind] * min(1, options.scale))
        with tempfile.TemporaryDirectory(prefix="connect-kv-abuse-") as name:
            outcome = await attack(Path(name), kind, count, seconds)
        print(outcome.row(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
