"""What it costs a put that its caller is known: ``python -m tests.figures.authenticated``.

One route beside another in turns, each over a node that answers at once: all that is measured is what stands
between the wire and the log. Processor time, so that others on the machine count little.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa

from connect_kv.auth.authenticator import Authenticator
from connect_kv.auth.table import AuthTable
from connect_kv.auth.tokens import JwtTokens, SimpleTokens, Tokens
from connect_kv.frontend.grpc.router import Router
from connect_kv.frontend.grpc.services import add_services
from connect_kv.metrics import Metrics
from connect_kv.rpc import auth_pb2 as auth
from connect_kv.rpc.command_pb2 import Result
from connect_kv.rpc.kv_pb2 import PutRequest
from connect_kv.services.access import Access
from connect_kv.services.executor import CommandExecutor
from connect_kv.services.kv import KvService
from connect_kv.services.streams import Streams
from connect_kv.storage.memory import MemoryDisk
from connect_kv.storage.overlay import Overlay
from tests.services.conftest import FakeNode

PUTS = 1000
"""Of each in a turn."""
Call = Callable[[], Awaitable[bytes]]


class Answering(FakeNode):
    """A node whose answer is there already."""

    def __init__(self) -> None:
        super().__init__()
        result = Result()
        result.put.header.revision = 5
        self._answer = [result.SerializeToString()]

    def submit(self, payload: bytes, count: int = 1) -> asyncio.Future[Any]:
        answered = asyncio.get_running_loop().create_future()
        answered.set_result(self._answer)
        return answered


class Room:
    """A quota that is never used up."""

    async def admit_put(self, request: PutRequest) -> None:
        pass


def prepared(directory: Path, tokens_of: Callable[[AuthTable], Tokens] | None) -> Call:
    """A put by a user with ten ranges; by nobody, authentication off, without tokens."""
    table = AuthTable()
    changes = Overlay(MemoryDisk(random.Random(1)).open(directory / "state"))

    def change(**wanted: Any) -> auth.AuthChanged:
        return table.apply(auth.AuthChange(**wanted), 9, changes)

    for user in ("root", "al"):
        change(user_add=auth.AuthUserAddRequest(name=user))
    change(user_grant_role=auth.AuthUserGrantRoleRequest(user="root", role="root"))
    change(role_add=auth.AuthRoleAddRequest(name="r"))
    for number in range(10):
        perm = auth.Permission(
            permType=auth.Permission.READWRITE, key=b"k%d" % number, range_end=b"k%d~" % number
        )
        change(role_grant_permission=auth.AuthRoleGrantPermissionRequest(name="r", perm=perm))
    change(user_grant_role=auth.AuthUserGrantRoleRequest(user="al", role="r"))
    tokens = tokens_of(table) if tokens_of else SimpleTokens(table, time.monotonic)
    metadata = [("user-agent", "grpc-go/1.60.0")]
    if tokens_of:
        change(enable=auth.AuthEnableRequest())
        begun = tokens.begin(random.Random(1))
        login = auth.AuthLogin(name="al", token=begun, auth_revision=table.revision)
        metadata.append(("token", tokens.finish("al", table.revision, change(login=login).token)))

    async def applied(index: int) -> None:
        pass

    who = Authenticator(table, tokens, applied=applied, last_applied=lambda: 9, patience=1)
    access = Access(table, who, lambda: None)
    replica = CommandExecutor(Answering(), cluster_id=1, member_id=1, revision=lambda: 1)
    nothing: Any = None
    room: Any = Room()
    router = Router(
        Streams(lambda: True, patience=1), Metrics(process=False), lambda: True, ready=access.ready
    )
    add_services(router, {"KV": KvService(replica, nothing, room, access)})
    put = router.route("/etcdserverpb.KV/Put").unary
    request = PutRequest(key=b"k5/abc", value=bytes(64)).SerializeToString()
    return lambda: put(request, metadata)


async def cost(call: Call) -> float:
    """Microseconds of processor time."""
    begun = time.process_time()
    for _ in range(PUTS):
        await call()
    return (time.process_time() - begun) / PUTS * 1e6


async def measure(turns: int) -> None:
    """Print the median of the differences within each turn."""
    key = rsa.generate_private_key(65537, 2048)

    def jwt(table: AuthTable) -> Tokens:
        public = key.public_key()
        return JwtTokens(table, time.time, method="RS256", verify_key=public, sign_key=key, ttl=300)

    with tempfile.TemporaryDirectory() as name:
        bare = prepared(Path(name), None)
        others = {
            "simple token": prepared(Path(name), lambda table: SimpleTokens(table, time.monotonic)),
            "JSON Web Token": prepared(Path(name), jwt),
        }
        without: list[float] = []
        extra: dict[str, list[float]] = {kind: [] for kind in others}
        for _ in range(turns):
            base = await cost(bare)
            without.append(base)
            for kind, call in others.items():
                extra[kind].append(await cost(call) - base)
    print(f"a put without authentication: {statistics.median(without):.1f} us")
    for kind, costs in extra.items():
        print(f"with a {kind}: {statistics.median(costs):+.1f} us")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=31)
    asyncio.run(measure(parser.parse_args().turns))


if __name__ == "__main__":
    main()
