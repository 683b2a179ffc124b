"""One outgoing stream to one peer, opened again whenever it breaks."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from connect_kv.peer_protocol import HelloReply, HelloVerdict, Loss
from connect_kv.transport.codec import BadMessage, encode_frame
from connect_kv.transport.exchange import exchange
from connect_kv.transport.local import Local
from connect_kv.transport.send_queue import SendQueue
from connect_kv.transport.stream import StreamBroken, describe_failure, failed_in_tls, loss_of, read_frame
from connect_kv.transport.wire import CALL_FAILURES, OutgoingStream

_log = logging.getLogger(__name__)


class PeerLink:
    """Keeps one stream to one peer, with a bounded queue before it.

    What is sent while the peer is known to be away is dropped at once: when it comes back, it must
    not be met by megabytes of the past. An `eager` link is open as long as it exists, so that each
    member hears soon what the others think of it; another opens with the first message.
    """

    def __init__(
        self, node_id: int, open_call: Callable[[], Awaitable[OutgoingStream]], local: Local, *, eager: bool
    ) -> None:
        self._node_id = node_id
        self._open_call = open_call
        self._local = local
        self._eager = eager
        self._queue = SendQueue(local.limits)
        self._away = False
        self._loss = Loss.SILENT
        self._pause = local.limits.reconnect_first
        self._last_verdict = HelloVerdict.WELCOME
        self._last_reason = ""

    @property
    def away(self) -> bool:
        """Whether there is no stream, and an attempt to open one has failed."""
        return self._away

    def send(self, frame: bytes, *, urgent: bool) -> bool:
        """Queue it; False if it was dropped."""
        return not self._away and self._queue.put(frame, urgent=urgent)

    async def run(self) -> None:
        """Connect, and again, until cancelled."""
        while True:
            if not self._eager:
                self._away = False
                await self._queue.filled()
            pause = await self._attempt()
            self._away = True
            self._queue.clear()
            self._local.unreachable(self._node_id, self._loss)
            await self._local.clock.sleep(pause)

    async def _attempt(self) -> float:
        """One stream from hello to end; returns how long to pause before the next."""
        call: OutgoingStream | None = None
        self._loss = Loss.SILENT
        try:
            call = await self._open_call()
            reply = await self._introduce(call)
            if reply.verdict is not HelloVerdict.WELCOME:
                self._note_refusal(reply)
                self._loss = Loss.DROPPED  # it lives, and the reply says what is wrong
                return self._local.limits.refused_pause
            self._away, self._last_verdict, self._last_reason = False, HelloVerdict.WELCOME, ""
            self._pause = self._local.limits.reconnect_first
            own_id = self._local.hello(self._node_id).source
            traffic = self._local.traffic.of(self._node_id)
            await exchange(call, self._queue, self._node_id, own_id, self._local, traffic)
        except (*CALL_FAILURES, BadMessage) as error:
            self._loss = loss_of(error)
            reason = describe_failure(error)
            _log.log(
                logging.WARNING if self._is_news(error, reason) else logging.DEBUG,
                "a stream broke",
                extra={"member": f"{self._node_id:x}", "reason": reason},
            )
        except Exception:
            _log.exception("stream to peer %x failed", self._node_id)
        finally:
            if call is not None:
                call.cancel()
        pause = self._pause
        self._pause = min(2 * pause, self._local.limits.reconnect_most)
        return pause

    def _is_news(self, error: BaseException, reason: str) -> bool:
        """Whether it is for people: TLS that fails is a mistake of somebody, and lasts until it is mended."""
        if not failed_in_tls(error) or reason == self._last_reason:
            return False
        self._last_reason = reason
        return True

    def _note_refusal(self, reply: HelloReply) -> None:
        if reply.verdict is not self._last_verdict:  # not every second
            _log.debug(
                "a stream was refused",  # the node says so as well, and what that means
                extra={"member": f"{self._node_id:x}", "verdict": reply.verdict.name, "detail": reply.detail},
            )
        self._last_verdict = reply.verdict

    async def _introduce(self, call: OutgoingStream) -> HelloReply:
        await call.write(encode_frame(hello=self._local.hello(self._node_id)))
        reply = (await read_frame(call)).hello_reply
        if reply is None:
            raise StreamBroken("answered something else than a hello")
        self._local.receiver.hello_reply(self._node_id, reply)
        return reply
