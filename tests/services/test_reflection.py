"""Reflection knows every service under its own name and under etcd's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from grpc_reflection.v1alpha import reflection
from grpc_reflection.v1alpha.reflection_pb2 import (
    ExtensionRequest,
    ServerReflectionRequest,
    ServerReflectionResponse,
)

from connect_kv.frontend.grpc.reflection import ReflectionService, etcd_pool, service_names
from connect_kv.services.caller import Caller


def test_the_services_are_found_under_etcds_names() -> None:
    pool = etcd_pool()
    put = pool.FindServiceByName("etcdserverpb.KV").methods_by_name["Put"]
    assert put.input_type.full_name == "etcdserverpb.PutRequest"
    events = pool.FindMessageTypeByName("etcdserverpb.WatchResponse").fields_by_name["events"]
    assert events.number == 11
    assert events.message_type is not None
    assert events.message_type.full_name == "mvccpb.Event"
    lock = pool.FindServiceByName("v3lockpb.Lock").methods_by_name["Lock"]
    header = lock.output_type.fields_by_name["header"].message_type
    assert header is not None
    assert header.full_name == "etcdserverpb.ResponseHeader"


def test_both_names_are_listed() -> None:
    names = service_names(["connect_kv.v1.KV", "connect_kv.v1.Session", "connect_kv.v1.Lock"])
    assert {"connect_kv.v1.KV", "etcdserverpb.KV", "v3lockpb.Lock", "grpc.health.v1.Health"} <= set(names)
    assert "etcdserverpb.Session" not in names


class OneRequest:
    """A channel that has one request, and keeps what is answered."""

    caller = Caller()

    def __init__(self, request: ServerReflectionRequest) -> None:
        self._requests = [request]
        self.answers: list[Any] = []

    async def read(self) -> ServerReflectionRequest | None:
        return self._requests.pop() if self._requests else None

    async def write(self, response: Any) -> None:
        self.answers.append(response)


@pytest.mark.parametrize(
    "request_",
    [
        ServerReflectionRequest(list_services=""),
        ServerReflectionRequest(file_by_filename="connect_kv/rpc/kv.proto"),
        ServerReflectionRequest(file_by_filename="mvccpb/kv.proto"),
        ServerReflectionRequest(file_by_filename="nothing.proto"),
        ServerReflectionRequest(file_containing_symbol="connect_kv.v1.KV"),
        ServerReflectionRequest(file_containing_symbol="connect_kv.v1.PutRequest"),
        ServerReflectionRequest(file_containing_symbol="etcdserverpb.Watch"),
        ServerReflectionRequest(file_containing_symbol="etcdserverpb.Nothing"),
        ServerReflectionRequest(
            file_containing_extension=ExtensionRequest(
                containing_type="connect_kv.v1.PutRequest", extension_number=1000
            )
        ),
        ServerReflectionRequest(all_extension_numbers_of_type="google.protobuf.MessageOptions"),
        ServerReflectionRequest(all_extension_numbers_of_type="nothing"),
        ServerReflectionRequest(host="somewhere"),
    ],
    ids=str,
)
async def test_the_answers_are_those_of_the_library(request_: ServerReflectionRequest) -> None:
    names = ["connect_kv.v1.KV", "etcdserverpb.KV", "connect_kv.v1.Watch"]
    channel = OneRequest(request_)
    await ReflectionService(names).ServerReflectionInfo(channel)

    async def one() -> AsyncIterator[ServerReflectionRequest]:
        yield request_

    of_etcd = "etcdserverpb" in str(request_) or "mvccpb" in str(request_)
    library: Any = vars(reflection)["aio"].ReflectionServicer(names, *((etcd_pool(),) if of_etcd else ()))
    expected = [answer async for answer in library.ServerReflectionInfo(one(), None)]
    assert [_ordered(answer) for answer in channel.answers] == [_ordered(answer) for answer in expected]


def _ordered(answer: ServerReflectionResponse) -> ServerReflectionResponse:
    """Files come in any order, but for the first, which is what was asked for."""
    files = answer.file_descriptor_response.file_descriptor_proto
    if files:
        files[1:] = sorted(files[1:])
    return answer
