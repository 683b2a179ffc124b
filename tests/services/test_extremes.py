"""Numbers at the ends of their types, in every field of every request, are answered or refused on purpose.

What nobody thought of is logged as "call failed": there must be none, such as a number packed into
fewer bits than the wire allows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from connect_kv.frontend.grpc.services import SERVICES
from connect_kv.services.status import UNEXPECTED
from tests.services.cluster import Member, configs, running

F = FieldDescriptor
EXTREMES = {
    F.TYPE_INT64: (-(2**63), -1, 2**63 - 1),
    F.TYPE_UINT64: (1, 2**64 - 1),
    F.TYPE_INT32: (-(2**31), -1, 2**31 - 1),
    F.TYPE_UINT32: (1, 2**32 - 1),
    F.TYPE_ENUM: (-1, 77, 2**31 - 1),
    F.TYPE_BYTES: (b"\x00", b"\xff" * 300),
}
DEPTH = 3
PLAIN: dict[str, Any] = {"key": b"k", "name": b"n", "range_end": b"\x00"}
"""What makes most requests valid but for the number in question."""


def requests_of(kind: Descriptor, depth: int = DEPTH) -> Iterator[Message]:
    """One for each number of each field, also within messages of it."""
    for field in kind.fields:
        for value in EXTREMES.get(field.type, ()):
            request = filled(kind)
            if field.is_repeated:
                getattr(request, field.name).append(value)
            else:
                setattr(request, field.name, value)
            yield request
        if field.message_type is not None and depth:
            for inner in requests_of(field.message_type, depth - 1):
                request = filled(kind)
                if field.is_repeated:
                    getattr(request, field.name).add().CopyFrom(inner)
                else:
                    getattr(request, field.name).CopyFrom(inner)
                yield request


def filled(kind: Descriptor) -> Message:
    request = GetMessageClass(kind)()
    for name, value in PLAIN.items():
        if name in kind.fields_by_name and kind.fields_by_name[name].type == F.TYPE_BYTES:
            setattr(request, name, value)
    return request


async def answer(member: Member, method: MethodDescriptor, request: Message) -> str | None:
    """What a call ends with, or None if it was answered or still goes on."""
    channel: Any = member.channel
    path = f"/{method.containing_service.full_name}/{method.name}"
    data = request.SerializeToString()
    try:
        async with asyncio.timeout(0.1):
            if method.client_streaming:
                call = channel.stream_stream(path)()
                await call.write(data)
                await call.done_writing()
                await call.read()
            elif method.server_streaming:
                async for _ in channel.unary_stream(path)(data):
                    break
            else:
                await channel.unary_unary(path)(data)
    except grpc.aio.AioRpcError as error:
        return error.details()
    except TimeoutError:  # a watch, a lock that another holds
        pass
    return None


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
async def test_no_number_is_answered_by_accident(
    service: ServiceDescriptor, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    asked = 0
    async with running(configs(tmp_path, 1)) as (only,):
        for method in service.methods:
            for request in requests_of(method.input_type):
                asked += 1
                told = await answer(only, method, request)
                assert told != UNEXPECTED, (method.full_name, request)
                assert "call failed" not in caplog.text, (method.full_name, request)
        assert only.server.node.is_leader
    assert asked
