"""Whether a machine does the same everywhere: the same calls in several processes, and in several ways.

An object that is never stored is the measure. Compared with it are one in a process with other hashes, clock
and time zone, one that nobody asks anything, one that is stored and restored between calls, and one that goes
on in a process where nothing of its class was ever called, as after a restart.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from connect_kv.errors import ConfigError
from connect_kv.framework.replicated import Replicated
from connect_kv.framework.types import MethodKind
from connect_kv.framework.versions import methods_of
from connect_kv.statemachine.hosted import QUERY_WROTE, UNSTORABLE
from connect_kv.testing.simulation.invariants import Violation
from connect_kv.testing.simulation.machine import Arguments, first_of
from connect_kv.testing.simulation.member import Found, Step, WayOutcome
from connect_kv.testing.simulation.random_arguments import random_arguments
from connect_kv.testing.simulation.telling import arguments_in_words

__all__ = ["check_determinism"]

_TIMEOUT = 60
_SHIFT = 397 * 86_400 + 18_671.5
"""Seconds between the clocks of two members: another year, weekday, hour, minute and second."""


class _Process(NamedTuple):
    """What is particular to one."""

    hash_seed: int
    shift: float
    zone: str
    ways: tuple[str, ...]
    frozen: bool = False
    """All its clocks stand still."""


_PROCESSES = (
    _Process(1, 0, "UTC", ("kept", "without_queries")),
    _Process(2, _SHIFT, "EAST-23:31", ("kept", "restored", "reborn")),
)
_TIMELESS = tuple(_Process(hash_seed, 0, "UTC", ("kept",), frozen=True) for hash_seed in (1, 1, 2))
"""To find out what it is that makes a difference: the clock, chance, or the order of hashes."""

CHANCE = (
    "depends on chance, on addresses or on the process (random, uuid, id; datetime.now to the last digit)"
)
ORDER = "depends on the order of a set, or on hash()"
CLOCK = "reads the clock or the time zone of the machine it runs on: log_time is the only clock"
QUERIES = "depends on whether queries ran, which they do on one member alone"
STORED = (
    "differs between an object that was never stored and one that was stored and restored: "
    "what is restored is not what was stored"
)
REBORN = (
    "differs in a process where nothing was called before: it uses what is not in the object's attributes "
    "(class variables, globals, caches, defaults of parameters)"
)


def check_determinism(
    machine: type[Replicated], *, calls: int = 200, seed: int = 1, arguments: Arguments | None = None
) -> None:
    """Make the same calls on several members: other hash seeds, clocks, time zones, and restarts in between.

    `arguments` makes up what a call is given; without it, the method's `@examples`, or small values of the
    annotated types. Raises Violation naming the first call after which they differ and what it depends on,
    ConfigError for a class that cannot be checked: it must be importable, made without arguments, and have
    a command.
    What `datetime` says in UTC differs by the moment alone: rounded to hours, it is not found out.
    """
    first_of(machine)
    steps = _steps(machine, calls, seed, arguments)
    first, second = _run_all(machine, steps, _PROCESSES)
    ways = {"kept": first["kept"], "without_queries": first["without_queries"], "elsewhere": second["kept"]}
    ways |= {"restored": second["restored"], "reborn": second["reborn"]}
    checking = _Checking(machine, steps)
    checking.refusals(ways.values())
    differences = [
        checking.first_difference(ways["kept"], ways["elsewhere"], ""),
        checking.first_difference(ways["kept"], ways["without_queries"], QUERIES),
        checking.first_difference(ways["elsewhere"], ways["restored"], STORED),
        checking.first_difference(ways["elsewhere"], ways["reborn"], REBORN),
    ]
    # What depends on chance or a clock differs in all ways, wherever chance has it: the process comes first.
    others = [one for one in differences[1:] if one is not None]
    found = differences[0] or min(others, key=lambda one: one.number, default=None)
    if found is not None:
        why = found.why or _environment(machine, steps, checking)
        raise Violation(f"{checking.call(found.number)} {why}; {found.what}")


class _Difference(NamedTuple):
    """Where two executions of the same steps first differ."""

    number: int
    """The number of the step after which they differ."""
    what: str
    why: str


class _Checking:
    """Reads what came of the steps."""

    def __init__(self, machine: type[Replicated], steps: Sequence[Step]) -> None:
        self._name = machine.__name__
        self._steps = steps

    def call(self, number: int) -> str:
        """A call in words."""
        step = self._steps[number]
        given = arguments_in_words(b64decode(step.arguments))
        return f"{self._name}.{step.method}({given}), call {number + 1} of {len(self._steps)},"

    def refusals(self, ways: Iterable[WayOutcome]) -> None:
        """Raises Violation for what one way alone shows: a query that writes, what cannot be stored."""
        for way in ways:
            for number, found in enumerate(way.found):
                if found.wrote or found.answer.startswith(f"{QUERY_WROTE}: "):
                    what = found.wrote or found.answer.removeprefix(f"{QUERY_WROTE}: ")
                    raise Violation(f"{self.call(number)} is a query and changes the object: {what}")
                if found.answer.startswith(f"{UNSTORABLE}: "):
                    raise Violation(
                        f"{self.call(number)} leaves what cannot be stored: "
                        f"{found.answer.removeprefix(f'{UNSTORABLE}: ')}; {_state(found)}"
                    )
            if way.error:
                raise Violation(f"{self._name}: {way.error}")

    def first_difference(self, one: WayOutcome, other: WayOutcome, why: str) -> _Difference | None:
        """The first step after which they are not alike."""
        for number, (mine, theirs) in enumerate(zip(one.found, other.found, strict=True)):
            asked = bool(theirs.answer) or not self._steps[number].reads
            if asked and mine.answer != theirs.answer:
                text = (
                    f"it returned {mine.answer} on one member and {theirs.answer} on another; {_state(mine)}"
                )
                return _Difference(number, text, why)
            if mine.digest != theirs.digest:
                return _Difference(number, f"it left another state behind: {_apart(mine, theirs)}", why)
        return None


def _environment(machine: type[Replicated], steps: Sequence[Step], checking: _Checking) -> str:
    """What it is about another process that makes the difference."""
    one, again, hashes = (found["kept"] for found in _run_all(machine, steps, _TIMELESS))
    if checking.first_difference(one, again, "") is not None:
        return CHANCE
    return ORDER if checking.first_difference(one, hashes, "") is not None else CLOCK


def _state(found: Found) -> str:
    return "the state is " + (
        ", ".join(f"{name} = {words}" for name, words in found.words.items()) or "empty"
    )


def _apart(mine: Found, theirs: Found) -> str:
    for name in {**mine.words, **theirs.words}:
        here, there = (one.words.get(name, "missing") for one in (mine, theirs))
        if here != there:
            return f"{name} = {here} on one member and {there} on another"
    return f"of other types, or shared otherwise; {_state(mine)}"


def _steps(machine: type[Replicated], calls: int, seed: int, arguments: Arguments | None) -> list[Step]:
    """Calls from the seed, half of them commands. Raises ConfigError for a class that cannot be compared."""
    owner: type = machine
    methods = methods_of(owner)
    commands = sorted(name for name, method in methods.items() if method.kind is MethodKind.COMMAND)
    queries = sorted(methods.keys() - set(commands))
    _refuse_what_cannot_be_compared(machine, commands)
    rng = random.Random(seed)
    steps = []
    for _ in range(calls):
        name = rng.choice(queries if queries and rng.random() < 0.4 else commands)
        given = arguments(name, rng) if arguments else random_arguments(machine, methods[name], rng)
        packed = b64encode(methods[name].bind((), given)).decode()
        steps.append(Step(name, packed, methods[name].kind is MethodKind.QUERY))
    return steps


def _refuse_what_cannot_be_compared(machine: type[Replicated], commands: Sequence[str]) -> None:
    """Raises ConfigError."""
    name = machine.__name__
    if "<locals>" in machine.__qualname__:
        raise ConfigError(
            f"{name} is defined inside a function, where other processes cannot import it: "
            "define it in a module"
        )
    if machine.__module__ == "__main__":
        raise ConfigError(f"{name} is defined in the program itself: define it in a module to import")
    if not commands:
        raise ConfigError(f"{name} has no @command: there is nothing to do on one member and another")


def _run_all(
    machine: type[Replicated], steps: Sequence[Step], processes: Sequence[_Process]
) -> list[dict[str, WayOutcome]]:
    """What came of each call, in each way of each process; they run side by side."""
    started = []
    for one in processes:
        wanted = {
            "path": sys.path,
            "module": machine.__module__,
            "name": machine.__qualname__,
            "steps": steps,
            "shift": one.shift,
            "frozen": one.frozen,
            "ways": one.ways,
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "connect_kv.testing.simulation.member"],
            env={
                **os.environ,
                "PYTHONHASHSEED": str(one.hash_seed),
                "TZ": one.zone,
                "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        started.append((process, msgspec.json.encode(wanted)))
    found = []
    for process, text in started:
        with process:
            try:
                said, complaint = process.communicate(text, timeout=_TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
                raise Violation(f"{machine.__qualname__}: the calls took more than {_TIMEOUT} s") from None
        if process.returncode:
            reason = complaint.decode(errors="replace").strip()[-500:]
            raise Violation(f"{machine.__qualname__} does not run by itself: {reason}")
        found.append(msgspec.json.decode(said.splitlines()[-1], type=dict[str, WayOutcome]))
    return found
