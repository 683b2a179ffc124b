"""Writes that come together share proposals: one entry of a queue, one future, one waiter for hundreds.

What can be refused is refused one by one before; what is left of one turn goes to the log in as few payloads
as are good for it. Each call hears what it would have heard alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from connect_kv.errors import NotProposed
from connect_kv.services.asked import Asked, Many, all_failed
from connect_kv.services.caller import Caller
from connect_kv.services.executor import Replica, Submit, encode_command
from connect_kv.services.turns import Turns

MOST_COMMANDS = 512
"""Of one proposal: a cluster that serves many must not wait for one of them."""
MOST_BYTES = 256 << 10
"""Of one proposal, unless a single command is larger."""

Prepare = Callable[[Any, Caller], tuple[bytes, bytes] | None]
"""Raises what one request is refused with, or gives its encoded command and what is to stand beside it in the
log (`services.access`); None where it must be asked alone."""
Cut = Callable[[Any, bytes], bytes]
"""The response to that request out of its encoded result. Raises what the result says was refused."""


class Writes:
    """Makes the batch form of methods that replicate one command for each request."""

    def __init__(self, replica: Replica, turns: Turns) -> None:
        """In `turns` answers are given."""
        self._replica = replica
        self._turns = turns

    def method(
        self,
        field: int,
        prepare: Prepare,
        cut: Cut | None = None,
    ) -> Many:
        """For requests whose command has that number within Command.

        `cut` makes another response than the one that the result holds.
        """
        response = self._replica.headers.response
        chosen: Cut = cut or (lambda request, result: response(field, result))

        def many(calls: Iterable[Asked[Any]]) -> None:
            self._replicate(calls, field, prepare, chosen)

        return many

    def _replicate(
        self,
        calls: Iterable[Asked[Any]],
        field: int,
        prepare: Prepare,
        cut: Cut,
    ) -> None:
        replica = self._replica
        proposal = _Proposal(replica, cut, self._turns)
        for one in calls:
            try:
                prepared = prepare(one.request, one.caller)
                if prepared is None:
                    one.alone()
                    continue
                encoded, by = prepared
                replica.check(field, len(encoded))
                replica.enter()
            except Exception as error:
                one.fail(error)
                continue
            entry = encode_command(field, encoded, by)
            if not proposal.takes(len(entry)):
                proposal.begin()
                proposal = _Proposal(replica, cut, self._turns)
            proposal.add(one, entry)
        proposal.begin()


class _Proposal:
    """Some commands of one turn, on their way to the log."""

    __slots__ = ("_asked", "_cut", "_entries", "_replica", "_size", "_tried", "_turns")

    def __init__(self, replica: Replica, cut: Cut, turns: Turns) -> None:
        self._replica = replica
        self._cut = cut
        self._turns = turns
        self._asked: list[Asked[Any]] = []
        self._entries: list[bytes] = []
        self._size = 0
        self._tried = False

    def takes(self, size: int) -> bool:
        """Whether a command of that size still fits."""
        return not self._asked or (len(self._asked) < MOST_COMMANDS and self._size + size <= MOST_BYTES)

    def add(self, one: Asked[Any], entry: bytes) -> None:
        """Put its command behind the others."""
        self._asked.append(one)
        self._entries.append(entry)
        self._size += len(entry)

    def begin(self) -> None:
        """Propose them, if there are any."""
        if self._asked:
            count = len(self._asked)
            self._replica.begin_proposal(self._submit, self._size, count, self._answered, self._failed)

    def _submit(self, submit: Submit) -> asyncio.Future[Sequence[bytes]]:
        if self._tried:
            # Between two attempts seconds pass, and clients go: it is certain that nothing took effect yet.
            self._drop_those_gone()
            if not self._asked:
                nothing: asyncio.Future[Sequence[bytes]] = asyncio.get_running_loop().create_future()
                nothing.set_result(())
                return nothing
        self._tried = True
        return submit(b"".join(self._entries), len(self._entries))

    def _drop_those_gone(self) -> None:
        wanted = []
        for one, entry in zip(self._asked, self._entries, strict=True):
            if one.gone():
                one.fail(NotProposed("nobody waits for it"))
            else:
                wanted.append((one, entry))
        self._asked = [one for one, _ in wanted]
        self._entries = [entry for _, entry in wanted]

    def _answered(self, results: Sequence[bytes]) -> None:
        self._entries.clear()
        self._turns.do(self._answers(results))

    def _failed(self, error: Exception) -> None:
        self._entries.clear()
        self._turns.do(all_failed(self._asked, error))

    def _answers(self, results: Sequence[bytes]) -> Iterator[None]:
        cut = self._cut
        for one, result in zip(self._asked, results, strict=True):
            try:
                response = cut(one.request, result)
            except Exception as error:
                one.fail(error)
            else:
                one.answer(response)
            yield
