"""One server under test, spoken to by method name with our message classes under etcd's service names."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import Message

from connect_kv.rpc import kv_pb2 as kv
from connect_kv.rpc import lease_pb2 as lease
from connect_kv.rpc import watch_pb2 as watch

METHODS: dict[str, tuple[str, Any]] = {
    "RangeRequest": ("/etcdserverpb.KV/Range", kv.RangeResponse),
    "PutRequest": ("/etcdserverpb.KV/Put", kv.PutResponse),
    "DeleteRangeRequest": ("/etcdserverpb.KV/DeleteRange", kv.DeleteRangeResponse),
    "TxnRequest": ("/etcdserverpb.KV/Txn", kv.TxnResponse),
    "CompactionRequest": ("/etcdserverpb.KV/Compact", kv.CompactionResponse),
    "LeaseGrantRequest": ("/etcdserverpb.Lease/LeaseGrant", lease.LeaseGrantResponse),
    "LeaseRevokeRequest": ("/etcdserverpb.Lease/LeaseRevoke", lease.LeaseRevokeResponse),
    "LeaseTimeToLiveRequest": ("/etcdserverpb.Lease/LeaseTimeToLive", lease.LeaseTimeToLiveResponse),
    "LeaseLeasesRequest": ("/etcdserverpb.Lease/LeaseLeases", lease.LeaseLeasesResponse),
}
OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


@dataclass(frozen=True, slots=True)
class Failed:
    """A status other than OK."""

    code: str
    text: str


class Stream:
    """A bidirectional stream: what came in is kept in order."""

    def __init__(self, method: Any) -> None:
        self._outgoing: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self.received: list[Any] = []
        self.arrived = threading.Condition()
        self._call = method(self._requests())
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _requests(self) -> Iterator[Message]:
        while (request := self._outgoing.get()) is not None:
            yield request

    def _read(self) -> None:
        try:
            for response in self._call:
                with self.arrived:
                    self.received.append(response)
                    self.arrived.notify_all()
        except grpc.RpcError:
            pass

    def send(self, request: Message) -> None:
        self._outgoing.put(request)

    def next(self, position: int, timeout: float = 10.0) -> Any:
        """The response at that position, waited for."""
        with self.arrived:
            if not self.arrived.wait_for(lambda: len(self.received) > position, timeout):
                raise TimeoutError(f"no response {position} within {timeout:g} s")
            return self.received[position]

    def close(self) -> None:
        self._outgoing.put(None)
        self._call.cancel()
        self._reader.join(5)


class Target:
    """A server reached at an address."""

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self._channel = grpc.insecure_channel(address, options=OPTIONS)
        self._calls: dict[str, Any] = {
            request: self._channel.unary_unary(
                path,
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=answer.FromString,
            )
            for request, (path, answer) in METHODS.items()
        }

    def call(self, request: Message) -> Message | Failed:
        """One unary call."""
        try:
            return self._calls[type(request).__name__](request, timeout=20)  # type: ignore[no-any-return]
        except grpc.RpcError as error:
            return Failed(error.code().name, error.details() or "")

    def keep_alive(self) -> Stream:
        return self._stream("/etcdserverpb.Lease/LeaseKeepAlive", lease.LeaseKeepAliveResponse)

    def watch(self) -> Stream:
        return self._stream("/etcdserverpb.Watch/Watch", watch.WatchResponse)

    def _stream(self, path: str, answer: Any) -> Stream:
        return Stream(
            self._channel.stream_stream(
                path,
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=answer.FromString,
            )
        )

    def close(self) -> None:
        self._channel.close()
