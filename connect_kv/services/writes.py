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
from connect_kv.services.executor import CommandExecutor, Submit, command_head
from connect_kv.services.turns import Turns

MOST_COMMANDS = 512
"""Of one proposal: a cluster that serves many must not wait for one of them."""
MOST_BYTES = 256 << 10
"""Of one proposal, unless a single command is larger."""

Prepare = Callable[[Asked[Any]], tuple[bytes, bytes] | None]
"""Raises what one request is refused with, or gives its encoded command and what is to stand beside it in the
log (`services.access`); None where it must be asked alone."""
Cut = Callable[[Asked[Any], bytes], bytes]
"""The response to that one out of its encoded result. Raises what the result says was refused."""


class Writes:
    """Makes the batch form of methods that replicate one command for each request."""

    def __init__(self, executor: CommandExecutor, turns: Turns) -> None:
        """In `turns` answers are given."""
        self._executor = executor
        self._turns = turns

    def method(self, field: int, prepare: Prepare, cut: Cut | None = None) -> Many:
        """For requests whose command has that number within Command.

        `cut` makes another response than the one that the result holds.
        """

        def many(calls: Iterable[Asked[Any]]) -> None:
            self._replicate(calls, field, prepare, cut)

        return many

    def _replicate(self, calls: Iterable[Asked[Any]], field: int, prepare: Prepare, cut: Cut | None) -> None:
        check = self._executor.check
        asked: list[Asked[Any]] = []
        parts: list[bytes] = []
        total = 0
        for one in calls:
            try:
                prepared = prepare(one)
                if prepared is None:
                    one.alone()
                    continue
                encoded, by = prepared
                size = len(encoded)
                check(field, size)
            except Exception as error:
                one.fail(error)
                continue
            head = command_head(field, size, by)
            size += len(head)
            if total + size > MOST_BYTES or len(asked) == MOST_COMMANDS:
                self._begin(asked, parts, field, cut)
                asked, parts, total = [], [], 0
            asked.append(one)
            parts.append(head)
            parts.append(encoded)
            total += size
        self._begin(asked, parts, field, cut)

    def _begin(self, asked: list[Asked[Any]], parts: list[bytes], field: int, cut: Cut | None) -> None:
        """Propose as many as may wait."""
        count = self._executor.enter(len(asked))
        if count < len(asked):
            for one in asked[count:]:
                one.fail(self._executor.overloaded())
            del asked[count:], parts[2 * count :]
        if asked:
            proposal = _Proposal(self._executor, self._turns, asked, parts, field, cut)
            self._executor.begin_proposal(
                proposal.submit, sum(map(len, parts)), count, proposal.answered, proposal.failed
            )


class _Proposal:
    """Some commands of one turn, on their way to the log."""

    __slots__ = ("_asked", "_cut", "_executor", "_field", "_parts", "_tried", "_turns")

    def __init__(
        self,
        executor: CommandExecutor,
        turns: Turns,
        asked: list[Asked[Any]],
        parts: list[bytes],
        field: int,
        cut: Cut | None,
    ) -> None:
        """`parts`: of each command its head and its request."""
        self._executor = executor
        self._turns = turns
        self._asked = asked
        self._parts = parts
        self._field = field
        self._cut = cut
        self._tried = False

    def submit(self, submit: Submit) -> asyncio.Future[Sequence[bytes]]:
        """An attempt, with what is still wanted."""
        if self._tried:
            # Between two attempts seconds pass, and clients go: it is certain that nothing took effect yet.
            self._drop_those_gone()
            if not self._asked:
                nothing: asyncio.Future[Sequence[bytes]] = asyncio.get_running_loop().create_future()
                nothing.set_result(())
                return nothing
        self._tried = True
        return submit(b"".join(self._parts), len(self._asked))

    def answered(self, results: Sequence[bytes]) -> None:
        """The commands were applied: answer each call by its own result."""
        self._parts.clear()
        try:
            cut = self._cut or self._headed()
        except Exception as error:
            self.failed(error)
        else:
            self._turns.do(self._answers(cut, results))

    def failed(self, error: Exception) -> None:
        """The proposal came to nothing: each call hears of the same error."""
        self._parts.clear()
        self._turns.do(all_failed(self._asked, error))

    def _drop_those_gone(self) -> None:
        asked, parts = self._asked, self._parts
        self._asked, self._parts = [], []
        for at, one in enumerate(asked):
            if one.gone():
                one.fail(NotProposed("nobody waits for it"))
            else:
                self._asked.append(one)
                self._parts += parts[2 * at : 2 * at + 2]

    def _headed(self) -> Cut:
        """For results that are responses but for their header."""
        respond = self._executor.headers.responses(self._field)
        return lambda one, result: respond(result)

    def _answers(self, cut: Cut, results: Sequence[bytes]) -> Iterator[None]:
        for one, result in zip(self._asked, results, strict=True):
            try:
                response = cut(one, result)
            except Exception as error:
                one.fail(error)
            else:
                one.answer(response)
            yield
