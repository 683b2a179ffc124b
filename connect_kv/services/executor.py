"""What every service asks of the node: propose, wait for a read barrier, fill the header.

Here, and only here, are the server's time limit, the size limit and the retries that are safe.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

from connect_kv.errors import NoLeader, NotProposed, OutcomeUnknown, Overloaded, RequestTooLarge, TimedOut
from connect_kv.etcd_errors import Code, Refusal
from connect_kv.kv.wire import HEADER
from connect_kv.protowire import field as framed
from connect_kv.protowire import read_varint, varint
from connect_kv.rpc.command_pb2 import Command, CommandBatch, Result
from connect_kv.rpc.kv_pb2 import ResponseHeader
from connect_kv.services.status import raise_failure

T = TypeVar("T")

_COMMANDS_TAG = bytes(((CommandBatch.COMMANDS_FIELD_NUMBER << 3) | 2,))
_RETRY_SECONDS = 0.02
MOST_WAITING = 8192
"""Of the unary calls and session batches of one member. A call that waits costs gRPC about 20 kB."""
_SESSION_RETRIES = (NoLeader, NotProposed, OutcomeUnknown, Overloaded)


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

    async def propose(self, payload: bytes, count: int = 1) -> Sequence[bytes]:
        """Replicate and apply; one encoded Result per command."""

    async def read_barrier(self) -> int:
        """Wait until everything acknowledged before is visible here."""


def encode_command(field_number: int, request: bytes) -> bytes:
    """A CommandBatch payload with one command outside any session, its request already encoded.

    The same bytes as ``CommandBatch(commands=[Command(put=...)])`` gives, without the two copies:
    this runs for every unary write.
    """
    head = _HEADS[field_number] + varint(len(request))
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
_RESULT_TAGS = {
    field_number(name): varint(Result.DESCRIPTOR.fields_by_name[name].number << 3 | 2)
    for name in ("delete_range", "txn")
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
        understood: Callable[[int], bool] = lambda field: True,
        why: Callable[[], str] = lambda: "",
    ) -> None:
        """`time_limit`: seconds a call may take in all, as etcd: 5 s and two election timeouts.

        `max_waiting`: calls that may wait for the node at a time; more are refused as Overloaded.

        `understood` says whether every member can apply commands of that number, so that one that was
        not upgraded yet never meets what it must stop at.

        `why` is the reason why nothing can be committed, empty if none is known: told to whom it delays.
        """
        self._understood = understood
        self.why = why
        self._max_waiting = max_waiting
        self._waiting = 0
        self._node = node
        self._revision = revision
        self._encoded_header = b""
        self._encoded_for: tuple[int, int] | None = None
        """Revision and term of that header."""
        self.cluster_id = cluster_id
        self.member_id = member_id
        self.time_limit = time_limit
        self.max_request_bytes = max_request_bytes

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

    async def execute(self, field: int, request: bytes) -> Result:
        """Replicate one encoded request and return its result.

        Raises Refused or CommandFailed if it was refused or failed, RequestTooLarge, NoLeader
        (nothing was proposed) or OutcomeUnknown.
        """
        result = Result.FromString(await self._replicated(field, request))
        if result.WhichOneof("result") == "failure":
            raise_failure(result)
        return result

    async def respond(self, field: int, request: bytes) -> bytes:
        """The same for a request that may have a large response: that one, encoded, its header filled.

        It is cut out of the result as it stands, in which the header comes first.
        """
        encoded = await self._replicated(field, request)
        if not encoded.startswith(tag := _RESULT_TAGS[field]):
            raise_failure(Result.FromString(encoded))
        _, start = read_varint(encoded, len(tag))
        size, start = read_varint(encoded, start + len(HEADER))
        header = ResponseHeader.FromString(encoded[start : start + size])
        self.fill(header)
        rest = memoryview(encoded)[start + size :]
        return b"".join((framed(HEADER, header.SerializeToString()), rest))

    async def _replicated(self, field: int, request: bytes) -> bytes:
        if len(request) > self.max_request_bytes:
            raise RequestTooLarge
        if field > FIRST_COMMANDS and not self._understood(field):
            raise NOT_CAPABLE.error()
        (encoded,) = await self.propose(encode_command(field, request), 1)
        return encoded

    async def propose(self, payload: bytes, count: int) -> Sequence[bytes]:
        """Replicate a payload; proposes it again only while it is certain that it never took effect."""
        return await self.within_limit(lambda: self._node.propose(payload, count), OutcomeUnknown)

    async def propose_in_session(self, payload: bytes, count: int) -> Sequence[bytes]:
        """The same for commands that carry a session: each is executed once however often it is
        proposed, so it is proposed again also when its fate is unknown.
        """
        return await self.within_limit(
            lambda: self._node.propose(payload, count), OutcomeUnknown, retry=_SESSION_RETRIES
        )

    async def barrier(self) -> int:
        """Wait until every write acknowledged before this call is visible here; the index that is."""
        return await self.within_limit(self._node.read_barrier, TimedOut)

    async def within_limit(
        self,
        call: Callable[[], Awaitable[T]],
        late: type[OutcomeUnknown | TimedOut],
        retry: tuple[type[Exception], ...] = (NoLeader, NotProposed),
    ) -> T:
        """Call until it gets through: without a leader a call waits, up to the limit.

        Raises NoLeader if the time ended while nothing was under way, otherwise `late`, each with the
        reason if one is known; Overloaded at
        once if too many wait already: who is refused early can go elsewhere, and memory stays bounded.
        """
        if self._waiting >= self._max_waiting:
            raise Overloaded(f"{self._waiting} calls are waiting already")
        self._waiting += 1
        try:
            return await self._until_through(call, late, retry)
        finally:
            self._waiting -= 1

    async def _until_through(
        self,
        call: Callable[[], Awaitable[T]],
        late: type[OutcomeUnknown | TimedOut],
        retry: tuple[type[Exception], ...],
    ) -> T:
        under_way, doubtful, leaderless = True, False, False
        try:
            async with asyncio.timeout(self.time_limit):
                while True:
                    # Once told that there is no leader, none is called before one is known: a call
                    # whose time ends meanwhile certainly had no effect.
                    if not leaderless or self.has_leader():
                        under_way = True
                        try:
                            return await call()
                        except retry as error:
                            doubtful = doubtful or isinstance(error, OutcomeUnknown)
                            under_way, leaderless = doubtful, isinstance(error, NoLeader)
                    await asyncio.sleep(_RETRY_SECONDS)
        except TimeoutError:
            raise (late if under_way else NoLeader)(self.why()) from None
