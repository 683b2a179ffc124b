"""Plain watch and keep-alive streams to chosen nodes, which give up where a client would carry on."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any

import grpc

from connect_kv.rpc.lease_pb2 import LeaseKeepAliveRequest, LeaseKeepAliveResponse
from connect_kv.rpc.watch_pb2 import WatchCreateRequest, WatchRequest, WatchResponse
from connect_kv.testing.processes import NodeProcess

CONNECTION_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 200),
]


class Connections:
    """One connection to each node, shared by all streams. An async context manager."""

    def __init__(self, nodes: Sequence[NodeProcess]) -> None:
        self._channels = {
            node.name: grpc.aio.insecure_channel(node.client_address, options=CONNECTION_OPTIONS)
            for node in nodes
        }

    async def __aenter__(self) -> Connections:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for channel in self._channels.values():
            await channel.close()

    async def watch(self, node: NodeProcess, create: WatchCreateRequest) -> Any:
        """A watch stream with one watch, its request sent; `read` gives responses."""
        call: Any = self._channels[node.name].stream_stream(
            "/etcdserverpb.Watch/Watch",
            request_serializer=WatchRequest.SerializeToString,
            response_deserializer=WatchResponse.FromString,
        )()
        await call.write(WatchRequest(create_request=create))
        return call

    def keep_alive(self, node: NodeProcess) -> Any:
        """A keep-alive stream."""
        return self._channels[node.name].stream_stream(
            "/etcdserverpb.Lease/LeaseKeepAlive",
            request_serializer=LeaseKeepAliveRequest.SerializeToString,
            response_deserializer=LeaseKeepAliveResponse.FromString,
        )()
