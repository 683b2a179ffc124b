"""Calls of services that another member has to carry out: the leader's, or each member's own.

They travel between the members' peer addresses, which every member can reach, and not to the
address that a member tells its clients, which perhaps only those can. The answer is the response or
the failure the other member would have given its own client.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from google.protobuf.message import DecodeError

from connect_kv import errors
from connect_kv.node.node import RaftNode
from connect_kv.rpc.command_pb2 import PeerAnswer, Result
from connect_kv.services.deadlines import begun
from connect_kv.services.executor import CommandExecutor
from connect_kv.services.status import failure_of, raise_failure

Handler = Callable[[bytes], Awaitable[bytes]]
"""From an encoded request to an encoded response."""

_NOTHING_DONE = {
    kind.__name__: kind
    for kind in (errors.NoLeader, errors.NotProposed, errors.Overloaded, errors.NodeStopped)
}
"""Failures after which the call may be made again; they travel by their name."""
_NOT_LEADER = errors.NotLeader.__name__
_UNKNOWN = errors.OutcomeUnknown.__name__


class PeerCalls:
    """What members do for each other; every member has the same table."""

    def __init__(self, node: RaftNode[bytes], executor: CommandExecutor) -> None:
        self._node = node
        self._executor = executor
        self._handlers: dict[str, Handler] = {}

    def serve(self, method: str, handler: Handler) -> None:
        """Carry out `method` with it, here and for others."""
        self._handlers[method] = handler

    async def answer(self, method: str, request: bytes) -> bytes:
        """For another member: the response or failure, encoded."""
        handler = self._handlers.get(method)
        try:
            if handler is None:
                raise NotImplementedError(f"connect-kv: this member does not know {method}: upgrade it")
            return PeerAnswer(response=await handler(request)).SerializeToString()
        except Exception as error:
            failure = failure_of(error)
            if isinstance(error, errors.NotLeader | errors.OutcomeUnknown) or (
                type(error).__name__ in _NOTHING_DONE
            ):
                failure.type = type(error).__name__
            return PeerAnswer(failure=failure).SerializeToString()

    async def ask(self, target: int, method: str, request: bytes) -> bytes:
        """Have that member do it. Raises as a call on it would; NotProposed if it was not begun,
        OutcomeUnknown if the answer is lost.
        """
        try:
            answer = PeerAnswer.FromString(await self._node.ask(target, method, request))
        except ConnectionRefusedError as error:
            raise errors.NotProposed(str(error)) from error
        except (OSError, DecodeError) as error:
            raise errors.OutcomeUnknown(str(error)) from error
        if not answer.HasField("failure"):
            return answer.response
        failure = answer.failure
        if (kind := _NOTHING_DONE.get(failure.type)) is not None:
            raise kind(failure.message)
        if failure.type == _NOT_LEADER:
            raise errors.NotLeader(None)
        if failure.type == _UNKNOWN:
            raise errors.OutcomeUnknown(failure.message)
        raise_failure(Result(failure=failure))

    async def ask_leader(self, method: str, request: bytes) -> bytes:
        """Have the leader do it, whoever that is; again only while it certainly was not done."""

        async def attempt() -> bytes:
            if self._node.is_leader:
                return await self._handlers[method](request)
            leader = self._node.leader_id
            if leader is None:
                raise errors.NoLeader
            return await self.ask(leader, method, request)

        return await self._executor.through(
            lambda: begun(attempt()),
            errors.OutcomeUnknown,
            retry=(errors.NoLeader, errors.NotProposed, errors.NotLeader),
        )
