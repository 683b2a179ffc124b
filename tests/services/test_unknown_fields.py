"""What this version does not know of a request never enters the log.

Groups within groups, a hundred deep, are read as a request and not as the entry that holds it: every member
would have to stop. And a field that a newer version knows would mean something on some members alone.
"""

from __future__ import annotations

from collections.abc import Awaitable
from contextlib import suppress
from pathlib import Path

import grpc
import pytest

from connect_kv.protowire import field, tag, varint
from connect_kv.rpc import kv_pb2, lease_pb2
from connect_kv.rpc.command_pb2 import Command
from tests.services.batch_member import Member as Alone
from tests.services.batches import calls, together
from tests.services.cluster import Member, configs, running
from tests.services.conftest import streaming, unary

OK = grpc.StatusCode.OK
UNKNOWN = 100
"""The number of a field that no request has."""
PUT = kv_pb2.PutRequest(key=b"k", value=b"v").SerializeToString()


def groups(depth: int) -> bytes:
    """An unknown field that holds itself, so many times."""
    return varint(UNKNOWN << 3 | 3) * depth + varint(UNKNOWN << 3 | 4) * depth


def newer(content: bytes = b"of a newer version") -> bytes:
    """A field that only a newer version knows."""
    return field(tag(UNKNOWN), content)


REQUESTS = {
    "/etcdserverpb.KV/Put": PUT,
    "/etcdserverpb.KV/DeleteRange": kv_pb2.DeleteRangeRequest(key=b"k").SerializeToString(),
    "/etcdserverpb.KV/Txn": field(tag(2), field(tag(2), PUT)),
    "/etcdserverpb.Lease/LeaseGrant": lease_pb2.LeaseGrantRequest(TTL=10).SerializeToString(),
}


async def test_no_depth_of_unknown_groups_stops_a_member(tmp_path: Path) -> None:
    async with running(configs(tmp_path, 1)) as (member,):
        for depth in range(92, 103):
            for path, request in REQUESTS.items():
                code = await told(unary(member.channel, path)(request + groups(depth), timeout=10))
                assert code in (OK, grpc.StatusCode.INTERNAL), (path, depth)
                assert not member.server.node.failed.done(), (path, depth)
        await still_serves(member)


async def test_nor_in_a_session(tmp_path: Path) -> None:
    async with running(configs(tmp_path, 1)) as (member,):
        for depth in range(88, 103):
            call = streaming(member.channel, "/connect_kv.v1.Session/Open")
            command = Command(number=1, put=kv_pb2.PutRequest(key=b"k")).SerializeToString()
            within = varint(8) + varint(2) + field(tag(Command.PUT_FIELD_NUMBER), PUT + groups(depth))
            batch = b"".join(field(tag(3), one) for one in (command, within))
            with suppress(grpc.aio.AioRpcError):
                await call.write(batch)
                await call.done_writing()
                while await call.read() is not grpc.aio.EOF:
                    pass
            assert await call.code() in (OK, grpc.StatusCode.INTERNAL), depth
            assert not member.server.node.failed.done(), depth
        await still_serves(member)


async def told(call: Awaitable[bytes]) -> grpc.StatusCode:
    try:
        await call
    except grpc.aio.AioRpcError as refused:
        return refused.code()
    return OK


async def still_serves(member: Member) -> None:
    await member.call("/etcdserverpb.KV/Put", kv_pb2.PutRequest(key=b"k"), kv_pb2.PutResponse)


@pytest.mark.parametrize("together_", [False, True], ids=["alone", "together"])
async def test_what_only_a_newer_version_knows_is_not_proposed(together_: bool) -> None:
    member = Alone()
    route = member.route("Put")
    if together_:
        await together(route, calls([PUT + newer()]))
    else:
        await route.unary(PUT + newer(), ())
    (batch,) = member.node.batches
    assert batch.commands[0].SerializeToString() == field(tag(Command.PUT_FIELD_NUMBER), PUT)
