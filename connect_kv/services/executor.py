"""What every service asks of the node: propose, wait for a read barrier, fill the header.

Here is the size limit; the server's time limit and the retries that are safe are in `services.attempts`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from typing import TypeVar

from connect_kv import tracing
from connect_kv.errors import NodeStopped, OutcomeUnknown, Overloaded, RequestTooLarge, TimedOut
from connect_kv.etcd_errors import Code, Refusal
from connect_kv.kv import proposer
from connect_kv.protowire import varint
from connect_kv.rpc.command_pb2 import Command, CommandBatch, Result
from connect_kv.services.attempts import (
    CERTAIN,
    MOST_WAITING,
    MOST_WAITING_BYTES,
    TEMPORARY,
    Attempt,
    Attempts,
    Proposer,
    Retried,
)
from connect_kv.services.deadlines import DeadlineExceeded, Deadlines, WaitingCall
from connect_kv.services.headers import Headers
from connect_kv.services.retries import Retries
from connect_kv.services.status import raise_failure
from connect_kv.statemachine.batches import traced
from connect_kv.tracing import SpanKind, Tracer

T = TypeVar("T")

_COMMANDS_TAG = bytes(((CommandBatch.COMMANDS_FIELD_NUMBER << 3) | 2,))
FIRST_COMMANDS: int = Command.MEMBER_PUBLISH_FIELD_NUMBER
"""Every version that ever ran can apply commands up to this number; new kinds get higher ones."""
NOT_CAPABLE = Refusal(Code.FAILED_PRECONDITION, "etcdserver: not capable")


Submit = Callable[[bytes, int], "asyncio.Future[Sequence[bytes]]"]
"""A payload and its number of commands, as `Proposer.submit` takes them."""


def encode_command(field_number: int, request: bytes, by: bytes = b"") -> bytes:
    """A CommandBatch payload with one command outside any session, its request already encoded.

    The same bytes as ``CommandBatch(commands=[Command(put=...)])`` gives, without the two copies:
    this runs for every unary write. `by`: who asked, encoded (`services.access`).
    """
    return command_head(field_number, len(request), by) + request


@lru_cache(8192)
def command_head(field_number: int, size: int, by: bytes) -> bytes:
    """What stands before a request of that many bytes in `encode_command`."""
    head = by + _HEADS[field_number] + varint(size)
    return _COMMANDS_TAG + varint(len(head) + size) + head


def field_number(name: str) -> int:
    """The number of a request in Command's oneof; numbers never change."""
    number: int = Command.DESCRIPTOR.fields_by_name[name].number
    return number


_HEADS = {
    field.number: varint((field.number << 3) | 2)
    for field in Command.DESCRIPTOR.oneofs_by_name["request"].fields
}
"""The tag of each request within its Command."""
BY_SERVER = Command(judged=proposer.BY_SERVER).SerializeToString()
"""As `by` of a command that this member proposes by itself: it is not judged."""


class CommandExecutor:
    """This member as its services see it."""

    def __init__(
        self,
        node: Proposer,
        *,
        cluster_id: int,
        member_id: int,
        revision: Callable[[], int],
        time_limit: float = 7.0,
        max_request_bytes: int = 1536 * 1024,
        max_waiting: int = MOST_WAITING,
        max_waiting_bytes: int = MOST_WAITING_BYTES,
        understood: Callable[[int], bool] = lambda field: True,
        why: Callable[[], str] = lambda: "",
        tracer: Tracer | None = None,
    ) -> None:
        """`time_limit`: seconds a call may take in all, as etcd: 5 s and two election timeouts.

        `max_waiting`: calls that may wait for the node at a time; more are refused as Overloaded. So are
        proposals of more than `max_waiting_bytes` together while there is no leader.

        `understood` says whether every member can apply commands of that number, so that one that was
        not upgraded yet never meets what it must stop at.

        `why` is the reason why nothing can be committed, empty if none is known: told to whom it delays.
        """
        self._understood = understood
        self._tracer = tracer
        self.why = why
        self._deadlines = Deadlines(time_limit)
        self._retries = Retries(self.has_leader)
        node.leader_changed.subscribe(self._retries.leader_changed)
        self._attempts = Attempts(
            node,
            self._deadlines,
            self._retries,
            max_waiting=max_waiting,
            max_waiting_bytes=max_waiting_bytes,
            why=why,
        )
        self._node = node
        self.headers = Headers(node, cluster_id, member_id, revision)
        self.fill = self.headers.fill
        self.header = self.headers.make
        self.encoded_header = self.headers.encoded
        self.cluster_id = cluster_id
        self.member_id = member_id
        self.max_request_bytes = max_request_bytes

    @property
    def time_limit(self) -> float:
        """Seconds that a call may take in all."""
        return self._deadlines.seconds

    @time_limit.setter
    def time_limit(self, seconds: float) -> None:
        """Of calls that begin from now on; set it while none is under way."""
        self._deadlines.seconds = seconds

    def has_leader(self) -> bool:
        """Whether a leader is known here."""
        return self._node.leader_id is not None

    async def execute(self, field: int, request: bytes, by: bytes = b"") -> Result:
        """Replicate one encoded request and return its result.

        Raises Refused or CommandFailed if it was refused or failed, RequestTooLarge, NoLeader
        (nothing was proposed) or OutcomeUnknown.
        """
        result = Result.FromString((await self._one(field, request, by))[0])
        if result.WhichOneof("result") == "failure":
            raise_failure(result)
        return result

    async def respond(self, field: int, request: bytes, by: bytes = b"") -> bytes:
        """The same for a request whose response has a header: the response, encoded, its header filled.

        It is cut out of the result as it stands (`Headers.response`).
        """
        (encoded,) = await self._one(field, request, by)
        return self.headers.response(field, encoded)

    def check(self, field: int, size: int) -> None:
        """Raises RequestTooLarge, or Refused for a kind that not every member can apply."""
        if size > self.max_request_bytes:
            raise RequestTooLarge
        if field > FIRST_COMMANDS and not self._understood(field):
            raise NOT_CAPABLE.error()

    def _one(self, field: int, request: bytes, by: bytes) -> Coroutine[None, None, Sequence[bytes]]:
        """Checked at once, replicated once it is awaited."""
        self.check(field, len(request))
        return self.propose(encode_command(field, request, by), 1)

    def propose(self, payload: bytes, count: int) -> Coroutine[None, None, Sequence[bytes]]:
        """Replicate a payload of so many commands, with one waiter for all; their encoded results.

        It is proposed again only while it is certain that it never took effect. Raises as `through`.
        """
        if self._tracer is not None and (parent := tracing.current()):
            return self._traced(self._tracer, payload, count, parent)
        return self._proposed(payload, count)

    def _proposed(self, payload: bytes, count: int) -> Coroutine[None, None, Sequence[bytes]]:
        submit = partial(self._node.submit, payload, count)
        return self.through(submit, OutcomeUnknown, CERTAIN, len(payload))

    async def _traced(self, tracer: Tracer, payload: bytes, count: int, parent: str) -> Sequence[bytes]:
        """With a span of its own, which the entry names: what members do with it stands below that."""
        span = tracer.begin("connect_kv.propose", parent, SpanKind.INTERNAL, {})
        error = "given up"
        try:
            results = await self._proposed(traced(payload, span.traceparent), count)
            error = ""
            return results
        except Exception as failure:
            error = type(failure).__name__
            raise
        finally:
            span.end(error=error)

    def barrier(self) -> Coroutine[None, None, int]:
        """Wait until every write acknowledged before this call is visible here; the index that is.

        Raises as `through`, TimedOut when it is late.
        """
        return self.through(self._node.submit_read, TimedOut, CERTAIN)

    async def until_applied(
        self, field: int, request: bytes, still: Callable[[], bool] = lambda: True
    ) -> None:
        """Propose something of this member's own, that does no harm twice, until it is known to be applied.

        However long that takes, if it is `still` wanted each time it had to wait. Raises NodeStopped.
        """
        await self._insist(partial(self._node.submit, encode_command(field, request, BY_SERVER), 1), still)

    async def until_caught_up(self) -> None:
        """Wait for a read barrier, however long that takes. Raises NodeStopped."""
        await self._insist(self._node.submit_read)

    async def leader_within(self, patience: Deadlines) -> bool:
        """Wait until a leader is known, but no longer than that. Raises NodeStopped."""
        with patience.begin() as call, suppress(DeadlineExceeded):
            while not self.has_leader():
                await self._retries.wait(call, again=False)
        return self.has_leader()

    def stop(self) -> None:
        """What waits for a leader, or for another attempt, ends with NodeStopped; the rest goes on."""
        self._retries.close(lambda: NodeStopped("this node is shutting down"))

    async def through(
        self,
        submit: Callable[[], asyncio.Future[T]],
        late: type[OutcomeUnknown | TimedOut],
        retry: Retried = CERTAIN,
        size: int = 0,
    ) -> T:
        """Submit until it gets through: without a leader a call of `size` bytes waits, up to the limit.

        Raises NoLeader if the time ended while nothing was under way, otherwise `late`, each with the
        reason if one is known; Overloaded at once if too many wait already: who is refused early can go
        elsewhere, and memory stays bounded.
        """
        return await self._attempts.through(Attempt(submit, late, retry, size))

    def enter(self, calls: int) -> int:
        """So many calls are to wait together; how many of them may: begin something for those then."""
        return self._attempts.enter(calls)

    def overloaded(self) -> Overloaded:
        """What the others are told."""
        return self._attempts.overloaded()

    def begin_proposal(
        self,
        submit: Callable[[Submit], asyncio.Future[Sequence[bytes]]],
        size: int,
        calls: int,
        answered: Callable[[Sequence[bytes]], None],
        failed: Callable[[Exception], None],
    ) -> None:
        """`propose` for so many calls that have entered, without a task as long as all goes well.

        `submit` is asked for each attempt what is still wanted.
        """
        attempt = Attempt(partial(submit, self._node.submit), OutcomeUnknown, size=size)
        self._attempts.begin(attempt, calls, answered, failed)

    def begin_in_session(
        self,
        payload: bytes,
        count: int,
        answered: Callable[[Sequence[bytes]], None],
        failed: Callable[[Exception], None],
    ) -> WaitingCall:
        """Replicate commands that carry a session, in the same way, as one call.

        Each is executed once, however often it is proposed: they are proposed again also when their fate is
        unknown. Raises Overloaded.
        """
        if not self.enter(1):
            raise self.overloaded()
        submit = partial(self._node.submit, payload, count)
        attempt = Attempt(submit, OutcomeUnknown, TEMPORARY, len(payload))
        return self._attempts.begin(attempt, 1, answered, failed)

    def begin_barrier(
        self, calls: int, answered: Callable[[int], None], failed: Callable[[Exception], None]
    ) -> None:
        """`barrier`, in the same way."""
        self._attempts.begin(Attempt(self._node.submit_read, TimedOut), calls, answered, failed)

    async def close(self) -> None:
        """End what is under way; after `stop`."""
        await self._attempts.close()

    async def _insist(
        self, submit: Callable[[], asyncio.Future[T]], still: Callable[[], bool] = lambda: True
    ) -> None:
        again = False
        while not again or still():
            if self.has_leader():
                with suppress(*TEMPORARY):
                    await submit()
                    return
            await self._retries.wait(None, again=again)
            again = True
