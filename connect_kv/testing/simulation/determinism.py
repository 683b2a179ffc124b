"""Whether a machine does the same everywhere: the same calls in processes with other hashes and clocks.

Run as a program it is one of those processes: it reads what to call, and prints what came of it.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import time
from base64 import b64decode, b64encode
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from connect_kv.errors import CommandFailed, ConfigError
from connect_kv.framework.hosted import Call, ReplicatedMachine
from connect_kv.framework.methods import methods_of
from connect_kv.framework.replicated import Replicated
from connect_kv.framework.types import Kind
from connect_kv.testing.simulation.invariants import Violation
from connect_kv.testing.simulation.machine import Arguments, first_of
from connect_kv.testing.simulation.random_arguments import made_up
from connect_kv.testing.simulation.telling import value_in_words

MEMBERS = 3
_TIMEOUT = 60
_SHIFT = 397 * 86_400 + 18_671.5
"""Seconds between the clocks of two members: another year, weekday, hour, minute and second."""
_ZONES = ("UTC", "EAST-97:31", "WEST+101:17")
"""Time zones, days apart: the local time of `datetime`, whose clock cannot be set."""


def check_determinism(
    machine: type[Replicated], *, calls: int = 200, seed: int = 1, arguments: Arguments | None = None
) -> None:
    """Make the same calls on three members with different hash seeds, clocks and time zones.

    `arguments` makes up what a call is given; without it, small values of the annotated types.
    Raises Violation naming the first call after which they differ, ConfigError for a class that cannot be
    checked: it must be importable, made without arguments, and have a command.
    What `datetime` says in UTC differs by the moment alone: rounded to hours, it is not found out.
    """
    first_of(machine)
    owner: type = machine
    methods = methods_of(owner)
    commands = sorted(name for name, method in methods.items() if method.kind is Kind.COMMAND)
    _refuse_what_cannot_be_compared(machine, commands)
    rng = random.Random(seed)
    made: list[tuple[str, str]] = []
    for _ in range(calls):
        name = rng.choice(commands)
        given = arguments(name, rng) if arguments else made_up(machine, methods[name], rng)
        made.append((name, b64encode(methods[name].bind((), given)).decode()))
    members = _run_all(machine, made)
    for number, (name, _) in enumerate(made):
        if len({json.dumps(member[number]) for member in members}) == 1:
            continue
        outcomes = sorted({member[number][0] for member in members})
        what = f"returned {' or '.join(outcomes)}" if len(outcomes) > 1 else "left another state behind"
        raise Violation(
            f"{machine.__name__}.{name}, call {number + 1} of {calls}, {what} on members with other hashes "
            "and clocks: a command may not depend on time, chance, addresses, or the order of a set"
        )


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


def _run_all(machine: type[Replicated], calls: Sequence[tuple[str, str]]) -> list[list[list[str]]]:
    """What came of each call, on each member; they run side by side."""
    started = []
    for number in range(MEMBERS):
        wanted = {
            "path": sys.path,
            "module": machine.__module__,
            "name": machine.__qualname__,
            "calls": calls,
            "shift": number * _SHIFT,
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "connect_kv.testing.simulation.determinism"],
            env={
                **os.environ,
                "PYTHONHASHSEED": str(number + 1),
                "TZ": _ZONES[number],
                "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append((process, json.dumps(wanted)))
    found = []
    for process, wanted_text in started:
        with process:
            try:
                said, complaint = process.communicate(wanted_text, timeout=_TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
                raise Violation(f"{machine.__qualname__}: the calls took more than {_TIMEOUT} s") from None
        if process.returncode:
            raise Violation(f"{machine.__qualname__} does not run by itself: {complaint.strip()[-500:]}")
        found.append(json.loads(said.splitlines()[-1]))
    return found


def member(wanted: dict[str, Any]) -> list[list[str]]:
    """What each call returned, and a hash of the state after it."""
    sys.path[:] = wanted["path"]
    _set_clocks(wanted["shift"])
    found: Any = import_module(wanted["module"])
    for part in wanted["name"].split("."):
        found = getattr(found, part)
    hosted = ReplicatedMachine(found())
    answers: list[list[str]] = []
    for number, (name, arguments) in enumerate(wanted["calls"]):
        (outcome,) = hosted.execute([Call(name, b64decode(arguments), number * 1_000_000, number + 1)], None)
        if isinstance(outcome, CommandFailed):
            text = f"{outcome.type}: {outcome.message}"
        else:
            text = value_in_words(outcome)
        answers.append([text, hashlib.blake2b(b"".join(hosted.snapshot()), digest_size=8).hexdigest()])
    return answers


def _set_clocks(shift: float) -> None:
    """The clocks of module `time` that tell the time of day go that many seconds before."""
    time_of_day, in_nanoseconds = time.time, time.time_ns
    time.time = lambda: time_of_day() + shift
    time.time_ns = lambda: in_nanoseconds() + int(shift * 1e9)
    for name in ("gmtime", "localtime", "ctime"):
        plain = getattr(time, name)
        setattr(time, name, lambda moment=None, plain=plain: plain(time.time() if moment is None else moment))


if __name__ == "__main__":
    print(json.dumps(member(json.load(sys.stdin))))
