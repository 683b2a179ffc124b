"""As much of etcd's service, in memory, as its clients need to be used against `listener.Server` alone."""

from __future__ import annotations

import asyncio

from aiohttp import web

from connect_kv.http2.calls import Call
from connect_kv.http2.limits import Limits
from connect_kv.http2.listener import Http2Server
from connect_kv.http2.metadata import StatusError
from connect_kv.http2.tasks import ServerStream
from connect_kv.rpc import kv_pb2, maintenance_pb2, watch_pb2


class Keys:
    """Puts and gets in batches, watches as streams, the rest a task a call."""

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}
        self.revision = 1
        self.batches: list[int] = []
        self.executed: list[bytes] = []
        self.hold = asyncio.Event()
        self.held: list[Call] = []
        self.watching: list[ServerStream] = []

    async def start(self, limits: Limits | None = None, port: int = 0) -> tuple[Http2Server, int]:
        kv, maintenance = "/etcdserverpb.KV/", "/etcdserverpb.Maintenance/"
        server = Http2Server(
            {kv + "Put": self.put, kv + "Range": self.range},
            {
                kv + "DeleteRange": self.delete,
                kv + "Compact": self.compact,
                maintenance + "Status": self.status,
                maintenance + "Defragment": self.defragment,
            },
            {"/etcdserverpb.Watch/Watch": self.watch},
            limits=limits,
            http1=web.Server(self.http),
        )
        return server, await server.listen("127.0.0.1", port)

    def put(self, calls: list[Call]) -> None:
        self.batches.append(len(calls))
        if self.hold.is_set():
            self.held += calls
            return
        for call in calls:
            request = kv_pb2.PutRequest.FromString(call.message)
            if request.key == b"refused":
                call.fail(9, "größer als 50%, sagt der Dienst")
                continue
            self.executed.append(request.value)
            self.values[request.key] = request.value
            self.revision += 1
            call.reply(kv_pb2.PutResponse(header=self._header()).SerializeToString())

    def range(self, calls: list[Call]) -> None:
        for call in calls:
            request = kv_pb2.RangeRequest.FromString(call.message)
            found = [
                kv_pb2.KeyValue(key=key, value=value, mod_revision=2, create_revision=2, version=1)
                for key, value in sorted(self.values.items())
                if key == request.key or request.key <= key < request.range_end
            ]
            answer = kv_pb2.RangeResponse(
                header=self._header(), kvs=[] if request.count_only else found, count=len(found)
            )
            call.reply(answer.SerializeToString())

    async def delete(self, call: Call) -> bytes:
        request = kv_pb2.DeleteRangeRequest.FromString(call.message)
        doomed = [key for key in self.values if key == request.key or request.key <= key < request.range_end]
        for key in doomed:
            del self.values[key]
        return kv_pb2.DeleteRangeResponse(header=self._header(), deleted=len(doomed)).SerializeToString()

    async def compact(self, call: Call) -> bytes:
        return kv_pb2.CompactionResponse(header=self._header()).SerializeToString()

    async def status(self, call: Call) -> bytes:
        raise StatusError(9, "no status here: 50% of größe")

    async def defragment(self, call: Call) -> bytes:
        return maintenance_pb2.DefragmentResponse(header=self._header()).SerializeToString()

    async def watch(self, stream: ServerStream) -> None:
        """Answers each creation, tells each watch one event, and ends when the key is ``end``."""
        self.watching.append(stream)
        async for one in stream:
            request = watch_pb2.WatchRequest.FromString(one)
            key = request.create_request.key
            created = watch_pb2.WatchResponse(header=self._header(), created=True)
            await stream.write(created.SerializeToString())
            if key == b"end":
                raise StatusError(7, "the watch ends here")
            event = watch_pb2.WatchResponse(header=self._header())
            event.events.add(kv=kv_pb2.KeyValue(key=key, value=b"seen", mod_revision=2))
            await stream.write(event.SerializeToString())

    async def http(self, request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(text="process_resident_memory_bytes 1.0e+06\n")

    def release(self) -> None:
        """Answer what is held."""
        self.hold.clear()
        held, self.held = self.held, []
        self.put(held)

    def _header(self) -> kv_pb2.ResponseHeader:
        return kv_pb2.ResponseHeader(cluster_id=1, member_id=2, revision=self.revision, raft_term=3)
