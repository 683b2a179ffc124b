"""What every service asks of the node: propose, wait for a read barrier, fill the header.

Here, and only here, are the server's time limit, the size limit and the retries that are safe.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from typing import Protocol, TypeVar

from connect_kv.errors import (
    NodeStopped,
    NoLeader,
    NotProposed,
    OutcomeUnknown,
    Overloaded,
    RequestTooLarge,
    TimedOut,
)
from connect_kv.etcd_errors import Code, Refusal
from connect_kv.events import Signal
from connect_kv.kv import proposer
from connect_kv.kv.wire import HEADER
from connect_kv.protowire import read_varint, varint
from connect_kv.rpc.command_pb2 import Command, CommandBatch, Result
from connect_kv.rpc.kv_pb2 import ResponseHeader
from connect_kv.services.deadlines import Call, Deadlines, OutOfTime
from connect_kv.services.retries import Retries
from connect_kv.services.status import raise_failure

T = TypeVar("T")

_COMMANDS_TAG = bytes(((CommandBatch.COMMANDS_FIELD_NUMBER << 3) | 2,))
MOST_WAITING = 8192
"""Of the unary calls and session batches of one member. A call that waits costs gRPC about 20 kB."""
MOST_WAITING_BYTES = 64 << 20
"""Of the proposals among them that wait for a leader."""
_Retried = tuple[type[Exception], ...]
_CERTAIN: _Retried = (NoLeader, NotProposed)
"""What was not proposed, and never will be."""
_TEMPORARY: _Retried = (NoLeader, NotProposed, OutcomeUnknown, Overloaded)
"""For what may be proposed twice."""


FIRST_COMMANDS: int = Command.MEMBER_PUBLISH_FIELD_NUMBER
"""Every version that ever ran can apply commands up to this number; new kinds get higher ones."""
NOT_CAPABLE = Refusal(Code.FAILED_PRECONDITION, "etcdserver: not capable")


class Proposer(Protocol):
    """The part of a RaftNode that services use."""

    @property
    def term(self) -> int:
        """Current term."""

    @property
    def leader_id(self) -> int | None:
        """Who leads, if known."""

    @property
    def leader_changed(self) -> Signal:
        """Another leader is known, or none any more."""

    def submit(self, payload: bytes, count: int = 1) -> asyncio.Future[Sequence[bytes]]:
        """Replicate and apply; resolves with one encoded Result per command. May raise at once."""

    def submit_read(self) -> asyncio.Future[int]:
        """Resolves when everything acknowledged before is visible here. May raise at once."""


def encode_command(field_number: int, request: bytes, by: bytes = b"") -> bytes:
    """A CommandBatch payload with one command outside any session, its request already encoded.

    The same bytes as ``CommandBatch(commands=[Command(put=...)])`` gives, without the two copies:
    this runs for every unary write. `by`: who asked, encoded (`services.access`).
    """
    head = by + _HEADS[field_number] + varint(len(request))
    return b"".join((_COMMANDS_TAG, varint(len(head) + len(request)), head, request))


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
_RESULT_TAGS = {
    field_number(name): varint(Result.DESCRIPTOR.fields_by_name[name].number << 3 | 2)
    for name in ("put", "delete_range", "txn")
}
"""The tag of the response within its Result."""


class Replica:
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
    ) -> None:
        """`time_limit`: seconds a call may take in all, as etcd: 5 s and two election timeouts.

        `max_waiting`: calls that may wait for the node at a time; more are refused as Overloaded. So are
        proposals of more than `max_waiting_bytes` together while there is no leader.

        `understood` says whether every member can apply commands of that number, so that one that was
        not upgraded yet never meets what it must stop at.

        `why` is the reason why nothing can be committed, empty if none is known: told to whom it delays.
        """
        self._understood = understood
        self.why = why
        self._max_waiting = max_waiting
        self._max_waiting_bytes = max_waiting_bytes
        self._waiting_bytes = 0
        self._deadlines = Deadlines(time_limit)
        self._retries = Retries(self.has_leader)
        node.leader_changed.subscribe(self._retries.leader_changed)
        self._node = node
        self._revision = revision
        self._encoded_header = b""
        self._encoded_for: tuple[int, int] | None = None
        """Revision and term of that header."""
        self._ids = ResponseHeader(cluster_id=cluster_id, member_id=member_id).SerializeToString()
        """What stands before the revision in a header: fields are encoded in the order of their numbers."""
        self._term = 0, b""
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

    def fill(self, header: ResponseHeader) -> None:
        """Set ids and term; the revision is the key/value machine's to set."""
        header.cluster_id = self.cluster_id
        header.member_id = self.member_id
        header.raft_term = self._node.term

    def header(self, revision: int | None = None) -> ResponseHeader:
        """A header of our own; `revision` defaults to the current one."""
        return ResponseHeader(
            cluster_id=self.cluster_id,
            member_id=self.member_id,
            revision=self._revision() if revision is None else revision,
            raft_term=self._node.term,
        )

    def encoded_header(self, revision: int) -> bytes:
        """The same header, encoded; kept, for watches ask for it again and again."""
        wanted = (revision, self._node.term)
        if self._encoded_for != wanted:
            self._encoded_for = wanted
            self._encoded_header = self.header(revision).SerializeToString()
        return self._encoded_header

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

        It is cut out of the result as it stands, in which the header comes first, and in that the revision.
        """
        (encoded,) = await self._one(field, request, by)
        if not encoded.startswith(tag := _RESULT_TAGS[field]):
            raise_failure(Result.FromString(encoded))
        _, start = read_varint(encoded, len(tag))
        size, start = read_varint(encoded, start + len(HEADER))
        header = b"".join((self._ids, encoded[start : start + size], self._encoded_term()))
        return b"".join((HEADER, varint(len(header)), header, memoryview(encoded)[start + size :]))

    def _encoded_term(self) -> bytes:
        """The end of a header: the node's term, encoded; kept, for it hardly ever changes."""
        term = self._node.term
        if self._term[0] != term:
            self._term = term, ResponseHeader(raft_term=term).SerializeToString()
        return self._term[1]

    def _one(self, field: int, request: bytes, by: bytes) -> Coroutine[None, None, Sequence[bytes]]:
        """Checked at once, replicated once it is awaited."""
        if len(request) > self.max_request_bytes:
            raise RequestTooLarge
        if field > FIRST_COMMANDS and not self._understood(field):
            raise NOT_CAPABLE.error()
        return self.propose(encode_command(field, request, by), 1)

    def propose(self, payload: bytes, count: int) -> Coroutine[None, None, Sequence[bytes]]:
        """Replicate a payload of so many commands, with one waiter for all; their encoded results.

        It is proposed again only while it is certain that it never took effect. Raises as `through`.
        """
        submit = partial(self._node.submit, payload, count)
        return self.through(submit, OutcomeUnknown, _CERTAIN, len(payload))

    def propose_in_session(self, payload: bytes, count: int) -> Coroutine[None, None, Sequence[bytes]]:
        """Replicate commands that carry a session: each is executed once however often it is proposed,
        so they are proposed again also when their fate is unknown. Raises as `through`.
        """
        submit = partial(self._node.submit, payload, count)
        return self.through(submit, OutcomeUnknown, _TEMPORARY, len(payload))

    def barrier(self) -> Coroutine[None, None, int]:
        """Wait until every write acknowledged before this call is visible here; the index that is.

        Raises as `through`, TimedOut when it is late.
        """
        return self.through(self._node.submit_read, TimedOut, _CERTAIN)

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
        with patience.begin() as call, suppress(OutOfTime):
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
        retry: tuple[type[Exception], ...] = _CERTAIN,
        size: int = 0,
    ) -> T:
        """Submit until it gets through: without a leader a call of `size` bytes waits, up to the limit.

        Raises NoLeader if the time ended while nothing was under way, otherwise `late`, each with the
        reason if one is known; Overloaded at once if too many wait already: who is refused early can go
        elsewhere, and memory stays bounded.
        """
        if len(self._deadlines) >= self._max_waiting:
            raise Overloaded(f"{len(self._deadlines)} calls are waiting already")
        under_way = doubtful = again = False
        with self._deadlines.begin() as call:
            try:
                while not call.over:
                    # None is submitted before a leader is known: a call whose time ends meanwhile
                    # certainly had no effect.
                    if self._node.leader_id is not None:
                        under_way = True
                        try:
                            return await call.waiting(submit())
                        except retry as error:
                            under_way = doubtful = doubtful or isinstance(error, OutcomeUnknown)
                    await self._wait(call, size, again)
                    again = True
            except OutOfTime:
                pass
        raise (late if under_way else NoLeader)(self.why())

    async def _wait(self, call: Call, size: int, again: bool) -> None:
        if self._waiting_bytes + size > self._max_waiting_bytes:
            raise Overloaded(f"proposals of {self._waiting_bytes} bytes are waiting already")
        self._waiting_bytes += size
        try:
            await self._retries.wait(call, again=again)
        finally:
            self._waiting_bytes -= size

    async def _insist(
        self, submit: Callable[[], asyncio.Future[T]], still: Callable[[], bool] = lambda: True
    ) -> None:
        again = False
        while not again or still():
            if self.has_leader():
                with suppress(*_TEMPORARY):
                    await submit()
                    return
            await self._retries.wait(None, again=again)
            again = True
