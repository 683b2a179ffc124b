"""One process of `check_determinism`: makes the same calls in several ways, and prints what came of each.

Every way is a fork of this process, which has loaded the class and called nothing of it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from base64 import b64decode
from collections.abc import Callable, Sequence
from functools import partial
from hashlib import blake2b
from importlib import import_module
from typing import Any, NamedTuple

import msgspec

from connect_kv.errors import CommandFailed, ConfigError
from connect_kv.framework.replicated import Replicated
from connect_kv.statemachine.hosted import MachineCall, ReplicatedMachine
from connect_kv.testing.simulation.portrait import Portrait, portrait_of

SEGMENTS = 12
"""How often a machine is born again in the way `reborn`."""


Way = Callable[[Callable[[], Replicated], Sequence["Step"]], "list[Found]"]


class Step(NamedTuple):
    """A call that every copy of a machine is to execute."""

    method: str
    arguments: str
    """Base 64."""
    reads: bool


class Found(msgspec.Struct):
    """What came of one call."""

    answer: str
    digest: str
    """Of the state after it."""
    words: dict[str, str]
    """The attributes of a machine, as text."""
    wrote: str = ""
    """Of a query: what it changed."""


def kept(make: Callable[[], Replicated], steps: Sequence[Step]) -> list[Found]:
    """An object that is never stored."""
    machine = make()
    hosted = ReplicatedMachine(machine)
    return [_run(hosted, machine, number, step) for number, step in enumerate(steps)]


def without_queries(make: Callable[[], Replicated], steps: Sequence[Step]) -> list[Found]:
    """What comes of the commands on a member that nobody asks anything."""
    machine = make()
    hosted = ReplicatedMachine(machine)
    found: list[Found] = []
    for number, step in enumerate(steps):
        found.append(_skipped(machine) if step.reads else _run(hosted, machine, number, step))
    return found


def restored(make: Callable[[], Replicated], steps: Sequence[Step]) -> list[Found]:
    """An object that is stored and restored, as another one, between calls."""
    machine = make()
    found = []
    for number, step in enumerate(steps):
        try:
            chunks = list(machine.snapshot())
        except ConfigError as error:
            raise _Stopped(f"after call {number} the state cannot be stored: {error}") from None
        machine = make()
        hosted = ReplicatedMachine(machine)
        hosted.restore(iter(chunks))
        found.append(_run(hosted, machine, number, step))
    return found


def reborn(make: Callable[[], Replicated], steps: Sequence[Step]) -> list[Found]:
    """An object that is stored now and then, and goes on in a process in which nothing has been called."""
    length = -(-len(steps) // SEGMENTS)
    found: list[Found] = []
    chunks: list[bytes] | None = None
    for start in range(0, len(steps), length):
        part, chunks = _forked(partial(_segment, make, steps, start, length, chunks))
        found += part
    return found


def _whole(
    way: Way, make: Callable[[], Replicated], steps: Sequence[Step]
) -> tuple[list[Found], list[bytes]]:
    return way(make, steps), []


def _segment(
    make: Callable[[], Replicated], steps: Sequence[Step], start: int, length: int, chunks: list[bytes] | None
) -> tuple[list[Found], list[bytes]]:
    machine = make()
    hosted = ReplicatedMachine(machine)
    if chunks is not None:
        hosted.restore(iter(chunks))
    numbered = list(enumerate(steps))[start : start + length]
    return [_run(hosted, machine, number, step) for number, step in numbered], list(machine.snapshot())


WAYS = {way.__name__: way for way in (kept, without_queries, restored, reborn)}


def _run(hosted: ReplicatedMachine, machine: Replicated, number: int, step: Step) -> Found:
    log_time, arguments = (number + 1) * 1_000_000, b64decode(step.arguments)
    wrote = ""
    if step.reads:
        before = portrait_of(machine)
        try:
            answer = _words(hosted.query(step.method, arguments, log_time, None))
        except CommandFailed as failed:
            answer = f"{failed.type}: {failed.message}"
        wrote = before.difference(portrait_of(machine), "before it", "after it") or ""
    else:
        (outcome,) = hosted.execute([MachineCall(step.method, arguments, log_time, number + 1)], None)
        if isinstance(outcome, CommandFailed):
            answer = f"{outcome.type}: {outcome.message}"
        else:
            assert isinstance(outcome, bytes), outcome  # there is one version
            answer = _words(outcome)
    return _found(answer, portrait_of(machine), wrote)


def _skipped(machine: Replicated) -> Found:
    return _found("", portrait_of(machine))


def _found(answer: str, portrait: Portrait, wrote: str = "") -> Found:
    return Found(answer, blake2b(portrait.whole, digest_size=8).hexdigest(), dict(portrait.words), wrote)


def _words(packed: bytes) -> str:
    try:
        return repr(msgspec.msgpack.decode(packed))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return repr(packed)


class WayOutcome(msgspec.Struct):
    """What came of one way."""

    found: list[Found] = []
    error: str = ""
    """Why it ended early."""


class _Stopped(Exception):
    """A way cannot go on; `found` is what came of the calls before."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)


def _forked(work: Callable[[], tuple[list[Found], list[bytes]]]) -> tuple[list[Found], list[bytes]]:
    """Run `work` in a copy of this process."""
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        status = 1
        try:
            os.close(reading)
            with os.fdopen(writing, "wb") as pipe:
                said: tuple[list[Found], list[bytes], str]
                try:
                    said = (*work(), "")
                except _Stopped as stopped:
                    said = ([], [], str(stopped))
                except Exception as error:
                    said = ([], [], f"{type(error).__name__}: {error}")
                pipe.write(msgspec.msgpack.encode(said))
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read()
    _, status = os.waitpid(child, 0)
    if status:
        raise _Stopped(f"the process of a member ended with status {os.waitstatus_to_exitcode(status)}")
    found, chunks, reason = msgspec.msgpack.decode(told, type=tuple[list[Found], list[bytes], str])
    if reason:
        raise _Stopped(reason)
    return found, chunks


def told(wanted: dict[str, Any]) -> dict[str, WayOutcome]:
    """What came of each way that is wanted."""
    sys.path[:] = wanted["path"]
    _set_clocks(wanted["shift"])
    if wanted["frozen"]:
        _stop_clocks()
    make: Any = import_module(wanted["module"])
    for part in wanted["name"].split("."):
        make = getattr(make, part)
    steps = [Step(*step) for step in wanted["steps"]]
    result = {}
    for way in wanted["ways"]:
        try:
            if way == "reborn":
                result[way] = WayOutcome(reborn(make, steps))  # forks itself
            else:
                result[way] = WayOutcome(_forked(partial(_whole, WAYS[way], make, steps))[0])
        except _Stopped as stopped:
            result[way] = WayOutcome(error=str(stopped))
    return result


def _set_clocks(shift: float) -> None:
    """The clocks of module `time` that tell the time of day go that many seconds before."""
    time_of_day, in_nanoseconds = time.time, time.time_ns
    time.time = lambda: time_of_day() + shift
    time.time_ns = lambda: in_nanoseconds() + int(shift * 1e9)
    for name in ("gmtime", "localtime", "ctime"):
        plain = getattr(time, name)
        setattr(time, name, lambda moment=None, plain=plain: plain(time.time() if moment is None else moment))


def _stop_clocks() -> None:
    """No clock of module `time` goes on."""
    for name in ("time", "monotonic", "perf_counter", "process_time", "thread_time"):
        setattr(time, name, lambda: 1_000_000_000.0)
        setattr(time, f"{name}_ns", lambda: 1_000_000_000 * 1_000_000_000)


if __name__ == "__main__":
    print(msgspec.json.encode(told(json.load(sys.stdin))).decode())
