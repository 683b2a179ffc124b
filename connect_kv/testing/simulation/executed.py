"""What the members ran of one machine, each step compared with an object that is never stored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from connect_kv.errors import BadCall, CommandFailed
from connect_kv.framework.replicated import Replicated
from connect_kv.framework.types import Store
from connect_kv.statemachine.hosted import (
    QUERY_WROTE,
    UNSTORABLE,
    Activation,
    Halt,
    MachineCall,
    Outcome,
    Rejected,
    ReplicatedMachine,
    Standing,
    Step,
)
from connect_kv.testing.simulation.invariants import Violation
from connect_kv.testing.simulation.portrait import Portrait, portrait_of
from connect_kv.testing.simulation.telling import arguments_in_words, value_in_words

Place = tuple[int, int]
"""Index of the entry, and position within it."""
Factory = Callable[[], Replicated]
Answer = bytes | str
"""A value as it travels, or what was raised."""


class ReferenceMachine:
    """One object that lives through all steps; at an activation its attributes move into the newer class."""

    def __init__(self, old: Factory, new: Factory) -> None:
        self._new = new
        self.machine = old()
        self.hosted = ReplicatedMachine(self.machine)

    def run(self, step: Step) -> Outcome | None:
        """Run it: what a command gives. Raises Halt."""
        if isinstance(step, Activation) and 0 < step.origin < step.version:
            self.hosted = self.moved()
            self.machine = self.hosted.machine
        outcomes = self.hosted.execute([step], None)
        return outcomes[0] if outcomes else None

    def moved(self) -> ReplicatedMachine:
        """The newer code with the same attributes, at the version at which the older one is."""
        machine = self._new()
        hosted = ReplicatedMachine(machine)
        vars(machine).clear()
        vars(machine).update(vars(self.machine))
        hosted.restore_standing(Standing(self.hosted.standing.version))
        return hosted


class Executed:
    """All steps in the order of the log. Members tell of each as they run it, again after a restart.

    They have to come to the same answer and state as an object of the class that is never stored.
    """

    def __init__(self, make: Factory, fail: Callable[[Violation], None], new: Factory | None = None) -> None:
        """`new`: the newer code of the class, to which it is upgraded on the way."""
        self.fail = fail
        self.steps: list[Step] = []
        self.outcomes: list[Outcome | None] = []
        """What a command gave; None for an activation."""
        self.notes: dict[str, str] = {}
        """By command: what its author should know, though it is not wrong."""
        self.reference = ReferenceMachine(make, new or make)
        self._first = portrait_of(self.reference.machine)
        self._portraits: list[Portrait] = []
        self._numbers: dict[Place, int] = {}
        self._asked: dict[tuple[str, bytes], list[int]] = {}
        self._past = _Past(self, lambda: ReferenceMachine(make, new or make))
        self._modules = tuple(type(one()).__module__ for one in (new or make, make))

    def alike(self, outcome: Outcome) -> Outcome:
        """An exception of the newer class's module is one of the older's, as it is where it is deployed."""
        newer, older = self._modules
        if isinstance(outcome, CommandFailed) and outcome.type.startswith(f"{newer}."):
            return CommandFailed(older + outcome.type.removeprefix(newer), outcome.message, outcome.details)
        return outcome

    @property
    def version(self) -> int:
        """The version of the machine that is active."""
        return self.reference.hosted.standing.version

    def ran(
        self, place: Place, step: Step, outcome: Outcome | None, portrait: Portrait, restored: bool
    ) -> None:
        """A member has run it."""
        number = self._numbers.get(place)
        if number is None:
            number = self._numbers[place] = len(self.steps)
            self._run(step)
        expected, measure = self.outcomes[number], self._portraits[number]
        member = "a member that was restored from its stored state" if restored else "a member"
        if outcome is not None and expected is not None and answer_of(outcome) != answer_of(expected):
            self.fail(
                Violation(
                    f"{in_words(step)} returned {_in_words(outcome)} on {member}, and "
                    f"{_in_words(expected)} by an object that was never stored; {portrait.state}"
                )
            )
        difference = portrait.difference(measure, f"on {member}", "in an object that was never stored")
        if difference is not None:
            self.fail(Violation(f"{in_words(step)} left {difference}"))

    def query(self, method: str, arguments: bytes, log_time: int) -> None:
        """A member runs a query."""
        self._asked.setdefault((method, arguments), []).append(log_time)

    def asked(self, method: str, arguments: bytes) -> Sequence[int]:
        """Log times at which it was asked so far, on any member."""
        return self._asked.get((method, arguments), ())

    def answer(self, place: int, method: str, arguments: bytes, log_time: int) -> Answer | None:
        """What a query answers after that many steps; None if the version then has no such query."""
        return self._past.answer(place, method, arguments, log_time)

    def state(self, place: int) -> str:
        """What the object holds after that many steps."""
        return (self._portraits[place - 1] if place else self._first).state

    def _run(self, step: Step) -> None:
        before = self._portraits[-1] if self._portraits else self._first
        outcome: Outcome | None = None
        try:
            outcome = self.reference.run(step)
            outcome = None if outcome is None else self.alike(outcome)
        except Halt as halt:
            self.fail(Violation(f"{in_words(step)}: {halt.reason}"))
        after = portrait_of(self.reference.machine)
        self.steps.append(step)
        self.outcomes.append(outcome)
        self._portraits.append(after)
        if not isinstance(outcome, CommandFailed) or not isinstance(step, MachineCall):
            return
        if outcome.type == UNSTORABLE:
            self.fail(Violation(f"{in_words(step)} leaves what cannot be stored: {outcome.message}"))
        elif (changed := before.difference(after, "before", "after")) is not None:
            self.notes.setdefault(
                step.method,
                f"{in_words(step)} raised {outcome.type} when it had changed the object already "
                f"({changed}): what a raising command changed stays",
            )


class _Past:
    """An object that is run up to whatever place is asked for."""

    def __init__(self, executed: Executed, make: Callable[[], ReferenceMachine]) -> None:
        self._executed = executed
        self._make = make
        self._known: dict[tuple[int, str, bytes, int], Answer | None] = {}
        self._place = 0
        self._reference = make()

    def answer(self, place: int, method: str, arguments: bytes, log_time: int) -> Answer | None:
        key = (place, method, arguments, log_time)
        if key not in self._known:
            self._known[key] = self._asked(place, method, arguments, log_time)
        return self._known[key]

    def _asked(self, place: int, method: str, arguments: bytes, log_time: int) -> Answer | None:
        if place < self._place:
            self._reference, self._place = self._make(), 0
        for step in self._executed.steps[self._place : place]:
            self._reference.run(step)
        self._place = place
        try:
            return self._reference.hosted.query(method, arguments, log_time, None)
        except CommandFailed as failed:
            return answer_of(self._executed.alike(failed))
        except BadCall:
            return None


class ObservedMachine(ReplicatedMachine):
    """A machine of one member, which tells what it runs."""

    def __init__(self, machine: Replicated, executed: Executed) -> None:
        super().__init__(machine)
        self._executed = executed
        self._restored = False

    def execute(self, steps: Sequence[Step], store: Store | None) -> list[Outcome]:
        """See ReplicatedMachine."""
        outcomes: list[Outcome] = []
        for step in steps:
            try:
                found = [self._executed.alike(one) for one in super().execute([step], store)]
            except Halt as halt:
                self._halted(f"{in_words(step)}: {halt.reason}")
                raise
            outcomes += found
            if not any(isinstance(one, Rejected) for one in found):  # nothing was run
                outcome = found[0] if found else None
                portrait = portrait_of(self.machine)
                place = (step.entry_index, step.position)
                self._executed.ran(place, step, outcome, portrait, self._restored)
        return outcomes

    def query(self, method: str, arguments: bytes, log_time: int, store: Store | None) -> bytes:
        """See ReplicatedMachine."""
        self._executed.query(method, arguments, log_time)
        before = portrait_of(self.machine)
        try:
            return super().query(method, arguments, log_time, store)
        except CommandFailed as failed:
            if failed.type == QUERY_WROTE:
                self._wrote(method, arguments, failed.message)
            told = self._executed.alike(failed)
            assert isinstance(told, CommandFailed)
            raise told from failed
        finally:
            changed = before.difference(portrait_of(self.machine), "before it", "after it")
            if changed is not None:
                self._wrote(method, arguments, changed)

    def snapshot(self) -> list[bytes]:
        """See ReplicatedMachine."""
        try:
            return super().snapshot()
        except Exception as error:
            if hasattr(self, "_executed"):
                self._halted(f"its state cannot be stored: {error}")
            raise

    def restore(self, chunks: Iterable[bytes], standing: Standing | None = None) -> None:
        """See ReplicatedMachine. What is run next is run again, or comes later."""
        self._restored = True
        try:
            super().restore(chunks, standing)
        except Halt as halt:
            self._halted(halt.reason)
            raise
        except Exception as error:
            self._halted(f"its stored state cannot be restored: {type(error).__name__}: {error}")
            raise

    def _halted(self, reason: str) -> None:
        self._executed.fail(Violation(f"the machine cannot go on on a member: {reason}"))

    def _wrote(self, method: str, arguments: bytes, what: str) -> None:
        asked = f"{method}({arguments_in_words(arguments)})"
        self._executed.fail(Violation(f"{asked} is a query and changes the object: {what}"))


def answer_of(outcome: Outcome) -> Answer:
    """A value as it travels, or what was raised: both are answers."""
    if isinstance(outcome, Rejected):
        return outcome.reason
    return f"{outcome.type}: {outcome.message}" if isinstance(outcome, CommandFailed) else outcome


def in_words(step: Step) -> str:
    """A call, or ``the upgrade from version 1 to 2``."""
    if isinstance(step, MachineCall):
        return f"{step.method}({arguments_in_words(step.arguments)})"
    if step.origin == 0:
        return "the beginning"
    return f"the upgrade from version {step.origin} to {step.version}"


def _in_words(outcome: Outcome) -> str:
    answer = answer_of(outcome)
    return value_in_words(answer) if isinstance(answer, bytes) else answer
