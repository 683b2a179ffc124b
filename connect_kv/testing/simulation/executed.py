"""What the members ran of one machine, each call compared with an object that is never stored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from connect_kv.errors import CommandFailed
from connect_kv.framework.hosted import (
    QUERY_WROTE,
    UNSTORABLE,
    Call,
    Outcome,
    Rejected,
    ReplicatedMachine,
    Standing,
    Step,
    Store,
)
from connect_kv.framework.replicated import Replicated
from connect_kv.testing.simulation.invariants import Violation
from connect_kv.testing.simulation.portrait import Portrait, portrait_of
from connect_kv.testing.simulation.telling import arguments_in_words, value_in_words

Place = tuple[int, int]
"""Index of the entry, and number of the call among those of the entry."""
Factory = Callable[[], Replicated]


class Executed:
    """All commands in the order of the log, with what they do to one object that lives through all of them.

    Members tell of each as they run it, again after a restart, and have to come to the same answer and state.
    """

    def __init__(self, make: Factory, fail: Callable[[Violation], None]) -> None:
        self.make = make
        self.fail = fail
        self.calls: list[Call] = []
        self.outcomes: list[Outcome] = []
        self.notes: dict[str, str] = {}
        """By command: what its author should know, though it is not wrong."""
        self._portraits: list[Portrait] = []
        self._numbers: dict[Place, int] = {}
        self._machine = make()
        self._hosted = ReplicatedMachine(self._machine)
        self._asked: dict[tuple[str, bytes], list[int]] = {}
        self._past = _Past(self)

    def command(self, place: Place, call: Call, outcome: Outcome, portrait: Portrait, restored: bool) -> None:
        """A member has run a command."""
        number = self._numbers.get(place)
        if number is None:
            number = self._numbers[place] = len(self.calls)
            self._run(call)
        expected, measure = self.outcomes[number], self._portraits[number]
        member = "a member that was restored from its stored state" if restored else "a member"
        if answer_of(outcome) != answer_of(expected):
            self.fail(
                Violation(
                    f"{_call_in_words(call)} returned {_in_words(outcome)} on {member}, and "
                    f"{_in_words(expected)} by an object of the class that was never stored; {portrait.state}"
                )
            )
        elif (
            difference := portrait.difference(measure, f"on {member}", "in an object that was never stored")
        ) is not None:
            self.fail(Violation(f"{_call_in_words(call)} left {difference}"))

    def query(self, method: str, arguments: bytes, log_time: int) -> None:
        """A member runs a query."""
        self._asked.setdefault((method, arguments), []).append(log_time)

    def asked(self, method: str, arguments: bytes) -> Sequence[int]:
        """Log times at which it was asked so far, on any member."""
        return self._asked.get((method, arguments), ())

    def answer(self, place: int, method: str, arguments: bytes, log_time: int) -> bytes | str:
        """What a query answers after that many commands."""
        return self._past.answer(place, method, arguments, log_time)

    def state(self, place: int) -> str:
        """What the object holds after that many commands."""
        return self._portraits[place - 1].state if place else portrait_of(self.make()).state

    def _run(self, call: Call) -> None:
        before = self._portraits[-1] if self._portraits else portrait_of(self._machine)
        (outcome,) = self._hosted.execute([call], None)
        after = portrait_of(self._machine)
        self.calls.append(call)
        self.outcomes.append(outcome)
        self._portraits.append(after)
        if not isinstance(outcome, CommandFailed):
            return
        if outcome.type == UNSTORABLE:
            self.fail(Violation(f"{_call_in_words(call)} leaves what cannot be stored: {outcome.message}"))
        elif (changed := before.difference(after, "before", "after")) is not None:
            self.notes.setdefault(
                call.method,
                f"{_call_in_words(call)} raised {outcome.type} when it had changed the object already "
                f"({changed}): what a raising command changed stays",
            )


class _Past:
    """An object that is run up to whatever place is asked for."""

    def __init__(self, executed: Executed) -> None:
        self._executed = executed
        self._known: dict[tuple[int, str, bytes, int], bytes | str] = {}
        self._place = 0
        self._hosted: ReplicatedMachine | None = None

    def answer(self, place: int, method: str, arguments: bytes, log_time: int) -> bytes | str:
        key = (place, method, arguments, log_time)
        if key not in self._known:
            self._known[key] = self._asked(self._at(place), method, arguments, log_time)
        return self._known[key]

    def _at(self, place: int) -> ReplicatedMachine:
        if self._hosted is None or place < self._place:
            self._hosted, self._place = ReplicatedMachine(self._executed.make()), 0
        self._hosted.execute(self._executed.calls[self._place : place], None)
        self._place = place
        return self._hosted

    def _asked(self, hosted: ReplicatedMachine, method: str, arguments: bytes, log_time: int) -> bytes | str:
        try:
            return hosted.query(method, arguments, log_time, None)
        except CommandFailed as failed:
            return answer_of(failed)


class ObservedMachine(ReplicatedMachine):
    """A machine of one member, which tells what it runs."""

    def __init__(self, machine: Replicated, executed: Executed) -> None:
        super().__init__(machine)
        self._observed = machine
        self._executed = executed
        self._place: Place = (0, 0)
        self._restored = False

    def execute(self, steps: Sequence[Step], store: Store | None) -> list[Outcome]:
        """See ReplicatedMachine."""
        outcomes: list[Outcome] = []
        for call in steps:
            if not isinstance(call, Call):
                super().execute([call], store)
                continue
            entry, number = self._place
            self._place = (entry, number + 1) if entry == call.entry_index else (call.entry_index, 0)
            outcomes += super().execute([call], store)
            portrait = portrait_of(self._observed)
            self._executed.command(self._place, call, outcomes[-1], portrait, self._restored)
        return outcomes

    def query(self, method: str, arguments: bytes, log_time: int, store: Store | None) -> bytes:
        """See ReplicatedMachine."""
        self._executed.query(method, arguments, log_time)
        before = portrait_of(self._observed)
        try:
            return super().query(method, arguments, log_time, store)
        except CommandFailed as failed:
            if failed.type == QUERY_WROTE:
                self._wrote(method, arguments, failed.message)
            raise
        finally:
            changed = before.difference(portrait_of(self._observed), "before it", "after it")
            if changed is not None:
                self._wrote(method, arguments, changed)

    def restore(self, chunks: Iterable[bytes], standing: Standing | None = None) -> None:
        """See ReplicatedMachine. What is run next is run again, or comes later."""
        self._place = (0, 0)
        self._restored = True
        super().restore(chunks, standing)

    def _wrote(self, method: str, arguments: bytes, what: str) -> None:
        asked = f"{method}({arguments_in_words(arguments)})"
        self._executed.fail(Violation(f"{asked} is a query and changes the object: {what}"))


def answer_of(outcome: Outcome) -> bytes | str:
    """A value as it travels, or what was raised: both are answers."""
    if isinstance(outcome, Rejected):
        return outcome.reason
    return f"{outcome.type}: {outcome.message}" if isinstance(outcome, CommandFailed) else outcome


def _in_words(outcome: Outcome) -> str:
    answer = answer_of(outcome)
    return value_in_words(answer) if isinstance(answer, bytes) else answer


def _call_in_words(call: Call) -> str:
    return f"{call.method}({arguments_in_words(call.arguments)})"
