"""connect_kv.v1.Watch and etcdserverpb.Watch."""

from __future__ import annotations

import asyncio

from connect_kv.errors import Refused
from connect_kv.etcd_errors import Code
from connect_kv.interfaces import Clock
from connect_kv.kv.watch import WatchHub
from connect_kv.kv.watch_stream import WatchStream
from connect_kv.rpc.watch_pb2 import WatchCreateRequest, WatchRequest
from connect_kv.services.access import Access
from connect_kv.services.caller import Caller, RequestStream
from connect_kv.services.executor import CommandExecutor
from connect_kv.services.user_quotas import UserQuotas

_BACKLOG = 4096
"""Answers that may wait on one stream before no more requests are read from it."""
_PAUSE_SECONDS = 0.02


class WatchService:
    """Carries requests to a stream of watches and its responses back; the hub has the rules."""

    def __init__(
        self, executor: CommandExecutor, hub: WatchHub, clock: Clock, access: Access, user_quotas: UserQuotas
    ) -> None:
        self._user_quotas = user_quotas
        self._executor = executor
        self._clock = clock
        self._hub = hub
        self._access = access
        self._streams: dict[WatchStream, None] = {}

    async def Watch(self, channel: RequestStream[WatchRequest]) -> None:
        """Serve one stream until the client cancels it.

        That it half-closes does not end it: a client that asks for one watch and only listens then
        is common. It never ends with OK, which an etcd client would take for the end of its watch.
        """
        stream = WatchStream(self._hub)
        self._streams[stream] = None
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._requests(channel, stream))
                while True:
                    await channel.write(await stream.next_encoded(self._executor.encoded_header))
        finally:
            del self._streams[stream]
            try:
                await stream.close_slowly()
            finally:
                stream.close()

    def rights_changed(self) -> None:
        """Users or roles have changed: watches end whose owners may not see that any more.

        etcd judges a watch only when it is created, and leaves it to who has lost the right, the role, or the
        account.
        """
        for stream in self._streams:
            stream.end_where(self._reason)

    async def _requests(self, channel: RequestStream[WatchRequest], stream: WatchStream) -> None:
        while (request := await channel.read()) is not None:
            await self._handle(channel, stream, request)
            while stream.backlog > _BACKLOG:
                # Whoever sends requests and reads no answers waits: its stream's own window holds it back.
                await self._clock.sleep(_PAUSE_SECONDS)

    async def _handle(
        self, channel: RequestStream[WatchRequest], stream: WatchStream, request: WatchRequest
    ) -> None:
        """The token is that of the stream, looked at again for each watch."""
        owner = ""
        if request.HasField("create_request"):
            create = request.create_request
            if not self._access.enabled:
                owner = self._access.who(channel.caller)  # asked for once authentication is switched on
            else:
                if (waiting := self._access.ready(channel.caller)) is not None:
                    await waiting
                try:
                    self._access.watch(channel.caller, create.key, create.range_end)
                    owner = self._access.name(channel.caller)
                    self._user_quotas.watch(owner, self._hub.owned[owner])
                except Refused as refused:
                    self._written_down(channel.caller, create, refused)
                    stream.refuse(_in_words(refused))
                    return
            self._written_down(channel.caller, create, None)
        stream.handle(request, owner)

    def _written_down(self, caller: Caller, request: WatchCreateRequest, refused: Refused | None) -> None:
        if self._access.audit is not None:
            self._access.audit.ended(caller, "Watch.Watch", request, refused)

    def _reason(self, owner: str, key: bytes, range_end: bytes) -> str | None:
        try:
            self._access.watch_of(owner, key, range_end)
        except Refused as refused:
            return _in_words(refused)
        return None


def _in_words(refused: Refused) -> str:
    """As etcd's server prints an error: clients compare it."""
    name = "".join(part.capitalize() for part in Code(refused.code).name.split("_"))
    return f"rpc error: code = {name} desc = {refused.message}"
