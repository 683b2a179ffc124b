"""What clients saw, in a form that can be judged and drawn."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from connect_kv import errors
from connect_kv.testing.checker.history import History, check_assumptions
from connect_kv.testing.checker.linearizability import CheckResult, Model, check

T = TypeVar("T")

NO_EFFECT = (errors.Unavailable, errors.NotProposed, errors.NoLeader, errors.Overloaded)
UNCERTAIN = (errors.OutcomeUnknown, errors.SessionExpired)
RESOURCE_EXHAUSTED = 8
MAX_STATES = 1_500_000
PATIENCE = 60.0
"""Seconds a call may be under way: its own timeout is far shorter."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One call, for the curves."""

    workload: str
    began: float
    ended: float
    ok: bool


@dataclass
class Log:
    """All calls of a run, and what was found to be wrong while it ran."""

    began: float
    samples: list[Sample] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)

    @property
    def now(self) -> float:
        """Seconds since the beginning."""
        return asyncio.get_running_loop().time() - self.began

    async def timed(self, workload: str, work: Awaitable[T]) -> T:
        """Wait for a call and note how long it took."""
        began, ok = self.now, False
        try:
            async with asyncio.timeout(PATIENCE):
                answer = await work
            ok = True
            return answer
        except errors.SessionExpired as error:
            # Sessions of these clients last longer than any fault, and are used all the time.
            self.violations.append(f"{workload}: a session was ended: {error}")
            raise
        except TimeoutError:
            self.violations.append(f"{workload}: a call was not over after {PATIENCE:g} s")
            raise errors.OutcomeUnknown("never came back") from None
        finally:
            self.samples.append(Sample(workload, began, self.now, ok))


class ClientHistory:
    """The history of one workload, and the model it must fit."""

    def __init__(self, log: Log, name: str, model: Model) -> None:
        self.log = log
        self.name = name
        self.model = model
        self.histories: dict[Hashable, History] = {}
        """Parts that have nothing to do with each other."""

    async def call(
        self,
        client: RecordingClient,
        input: Any,
        work: Awaitable[Any],
        output: Callable[[Any], Any],
        *,
        part: Hashable,
    ) -> Any:
        """Make one call and write it down; its output, or None if there was none."""
        history = self.histories.setdefault(part, History())
        number = history.call(client.identity, input, self.log.now)
        try:
            answer = output(await self.log.timed(self.name, work))
        except UNCERTAIN:
            client.another()
            if self.model.reads(input):
                history.drop(number)
            return None
        except NO_EFFECT:
            history.drop(number)
            return None
        except errors.Refused as refused:
            history.drop(number)
            if refused.code != RESOURCE_EXHAUSTED:
                self.log.violations.append(f"{self.name}: {input} was refused: {refused}")
            return None
        except asyncio.CancelledError:
            client.another()
            raise
        history.returns(number, answer, self.log.now)
        return answer

    def check(self) -> list[CheckResult]:
        """Judge each part."""
        outcomes = []
        for history in self.histories.values():
            check_assumptions(history.operations)
            outcomes.append(check(self.model, history.operations, max_states=MAX_STATES))
        return outcomes

    @property
    def calls(self) -> int:
        """How many there were."""
        return sum(len(history.operations) for history in self.histories.values())


class RecordingClient:
    """Who calls. A call of unknown outcome may still be under way: what comes after it is another's."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._life = 1

    @property
    def identity(self) -> str:
        """Under which name the calls of this life of the client are recorded."""
        return f"{self._name}.{self._life}"

    def another(self) -> None:
        """Begin the next."""
        self._life += 1
