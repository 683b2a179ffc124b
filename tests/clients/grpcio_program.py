"""The gRPC library alone, by etcd's names: ``grpcio_program.py HOST:PORT,... session|faults``.

Exits 0 if everything was as an etcd client expects. The environment says how: CLIENT_CA, CLIENT_CERT,
CLIENT_KEY, CLIENT_USER, CLIENT_PASSWORD; and below which prefix it writes through faults: CLIENT_PREFIX.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc

from connect_kv.rpc.auth_pb2 import AuthenticateRequest, AuthenticateResponse
from connect_kv.rpc.kv_pb2 import (
    DeleteRangeRequest,
    DeleteRangeResponse,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
)
from connect_kv.rpc.lease_pb2 import (
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseKeepAliveRequest,
    LeaseKeepAliveResponse,
)
from connect_kv.rpc.watch_pb2 import WatchCreateRequest, WatchRequest, WatchResponse

TRIES = 600
PREFIX = os.environ.get("CLIENT_PREFIX", "f").encode()
OPTIONS = (("grpc.max_reconnect_backoff_ms", 500), ("grpc.initial_reconnect_backoff_ms", 100))


def channel(address: str) -> grpc.Channel:
    root, cert, key = (
        Path(os.environ[name]).read_bytes() if name in os.environ else None
        for name in ("CLIENT_CA", "CLIENT_CERT", "CLIENT_KEY")
    )
    if root is None:
        return grpc.insecure_channel(address, options=OPTIONS)
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(root, key, cert), options=OPTIONS)


class Client:
    """One member after the other; a token that is not known any more is got anew, as etcd's clients do."""

    def __init__(self, endpoints: list[str]) -> None:
        self._channels = [channel(one) for one in endpoints]
        self._at = 0
        self._metadata: tuple[tuple[str, str], ...] | None = None
        self.retried = 0

    def call(self, path: str, request: Any, answer: Any) -> Any:
        for _ in range(TRIES):
            method: Any = self._channels[self._at].unary_unary(
                f"/etcdserverpb.{path}",
                request_serializer=type(request).SerializeToString,
                response_deserializer=answer.FromString,
            )
            try:
                return method(request, timeout=3, metadata=self.metadata())
            except grpc.RpcError as error:
                self.failed(error)
        raise TimeoutError(path)

    def failed(self, error: Any) -> None:
        if error.code() is grpc.StatusCode.UNAUTHENTICATED:
            self._metadata = None
        elif error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            self._at = (self._at + 1) % len(self._channels)
            time.sleep(0.02)
        else:
            raise error
        self.retried += 1

    def metadata(self) -> tuple[tuple[str, str], ...]:
        if self._metadata is None:
            user = os.environ.get("CLIENT_USER")
            if user is None:
                return ()
            login: Any = self._channels[self._at].unary_unary(
                "/etcdserverpb.Auth/Authenticate",
                request_serializer=AuthenticateRequest.SerializeToString,
                response_deserializer=AuthenticateResponse.FromString,
            )
            request = AuthenticateRequest(name=user, password=os.environ["CLIENT_PASSWORD"])
            self._metadata = (("token", login(request, timeout=5).token),)
        return self._metadata

    def stream(self, path: str, requests: Iterator[Any], answer: Any) -> Any:
        method: Any = self._channels[self._at].stream_stream(
            f"/etcdserverpb.{path}",
            request_serializer=lambda one: one.SerializeToString(),
            response_deserializer=answer.FromString,
        )
        return method(requests, metadata=self.metadata())

    def put(self, key: bytes, value: bytes, lease: int = 0) -> None:
        self.call("KV/Put", PutRequest(key=key, value=value, lease=lease), PutResponse)

    def get(self, key: bytes, range_end: bytes = b"") -> list[Any]:
        request = RangeRequest(key=key, range_end=range_end)
        return list(self.call("KV/Range", request, RangeResponse).kvs)


def kept_open(first: Any, done: threading.Event) -> Iterator[Any]:
    yield first
    done.wait()


def session(client: Client) -> None:
    client.put(b"g/1", b"1")
    assert [kv.value for kv in client.get(b"g/", b"g0")] == [b"1"]
    lease = client.call("Lease/LeaseGrant", LeaseGrantRequest(TTL=30), LeaseGrantResponse).ID
    client.put(b"g/2", b"2", lease)
    done = threading.Event()
    renewals = client.stream(
        "Lease/LeaseKeepAlive", kept_open(LeaseKeepAliveRequest(ID=lease), done), LeaseKeepAliveResponse
    )
    assert next(renewals).TTL == 30
    gone = client.call("KV/DeleteRange", DeleteRangeRequest(key=b"g/", range_end=b"g0"), DeleteRangeResponse)
    assert gone.deleted == 2
    done.set()


def follow(
    client: Client, seen: queue.Queue[tuple[int, int]], started: threading.Event, done: threading.Event
) -> None:
    """A watch that goes on at another member from where it stood."""
    revision = client.call("KV/Range", RangeRequest(key=b"x"), RangeResponse).header.revision + 1
    started.set()
    while not done.is_set():
        create = WatchCreateRequest(key=PREFIX + b"/", range_end=PREFIX + b"0", start_revision=revision)
        try:
            watch = client.stream(
                "Watch/Watch", kept_open(WatchRequest(create_request=create), done), WatchResponse
            )
            for answer in watch:
                if answer.canceled:
                    assert "invalid auth token" in answer.cancel_reason, answer
                    client._metadata = None
                    break
                for event in answer.events:
                    seen.put((int(event.kv.key.rpartition(b"/")[2]), event.kv.mod_revision))
                    revision = event.kv.mod_revision + 1
        except grpc.RpcError as error:
            client.failed(error)


def faults(client: Client, other: Client) -> None:
    seen: queue.Queue[tuple[int, int]] = queue.Queue()
    started, done, finish = threading.Event(), threading.Event(), threading.Event()
    threading.Thread(target=follow, args=(other, seen, started, done), daemon=True).start()
    started.wait()

    def told() -> None:
        sys.stdin.readline()
        finish.set()

    threading.Thread(target=told, daemon=True).start()
    number = 0
    while not finish.is_set() or number < 200:
        client.put(b"%s/%d" % (PREFIX, number), b"x")
        number += 1
        if number == 100:
            print("READY", flush=True)
    found: dict[int, int] = {}
    while len(found) < number:
        one, revision = seen.get(timeout=30)
        assert revision > max(found.values(), default=0), "in order, each revision once"
        found[one] = revision
    done.set()
    print(f"{number} writes, {client.retried} retried, {len(found)} keys seen")


def main(endpoints: str, mode: str) -> None:
    make: Callable[[], Client] = lambda: Client(endpoints.split(","))  # noqa: E731
    if mode == "faults":
        faults(make(), make())
    else:
        session(make())


if __name__ == "__main__":
    main(*sys.argv[1:])
    sys.stdout.flush()
    os._exit(0)  # the library's threads of streams that are still open
