"""What takes longer than two seconds says how far it is, on standard error: a bar on a terminal, else lines.

What is done sooner says nothing. Each form runs its drawing on a thread of its own, so that the work may
hold the loop, or have none.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event, Thread

import click

from connect_kv.cli.output import size

QUIET_SECONDS = 2.0
"""Before the first word."""
LINE_SECONDS = 10.0
"""From one line to the next, where there is no terminal."""
_DRAW_SECONDS = 0.1


@dataclass(slots=True)
class _Standing:
    """How far it is; written by the work, read by the thread that draws."""

    what: str
    done: int = 0
    total: int | None = None
    in_bytes: bool = False

    def line(self, seconds: float) -> str:
        """How far it is, in words, after so many seconds."""
        said = f"{self.what}: {seconds:.0f} s so far"
        if not self.done and not self.total:
            return said
        count = size if self.in_bytes else str
        of = f" of {count(self.total)}" if self.total else ""
        return f"{said}, {count(self.done)}{of}"


@contextmanager
def bar(what: str, *, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """``progress(done, total)`` in bytes. `quiet`: say nothing at all."""
    standing = _Standing(what, in_bytes=True)

    def update(done: int, total: int) -> None:
        standing.done, standing.total = done, total

    with _shown(standing, quiet):
        yield update


@contextmanager
def counting(what: str, total: int, *, quiet: bool) -> Iterator[Callable[[int], None]]:
    """``progress(done)`` of that many."""
    standing = _Standing(what, total=total)

    def update(done: int) -> None:
        standing.done = done

    with _shown(standing, quiet):
        yield update


@contextmanager
def waiting(what: str, *, quiet: bool, every: float | None = None) -> Iterator[Callable[[str], None]]:
    """Of something that does not say how far it is, only that it goes on. ``say(text)`` changes the text.

    `every` so many seconds there is a line, where there is no terminal.
    """
    standing = _Standing(what)

    def say(text: str) -> None:
        standing.what = text

    with _shown(standing, quiet, every):
        yield say


@contextmanager
def _shown(standing: _Standing, quiet: bool, every: float | None = None) -> Iterator[None]:
    if quiet:
        yield
        return
    ended = Event()
    lines = LINE_SECONDS if every is None else every
    thread = Thread(target=_show, args=(standing, ended, lines, time.monotonic()), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _show(standing: _Standing, ended: Event, every: float, began: float) -> None:
    if ended.wait(QUIET_SECONDS):
        return
    if sys.stderr.isatty():
        _draw(standing, ended, began)
        return
    click.echo(standing.line(time.monotonic() - began), err=True)
    while not ended.wait(every):
        click.echo(standing.line(time.monotonic() - began), err=True)


def _draw(standing: _Standing, ended: Event, began: float) -> None:
    """A bar that is gone when the work is done."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
        TransferSpeedColumn,
    )

    columns: list[ProgressColumn] = [TextColumn("{task.description}", markup=False)]
    if standing.in_bytes:
        columns += [BarColumn(), DownloadColumn(), TransferSpeedColumn()]
    elif standing.total is not None:
        columns += [BarColumn(), MofNCompleteColumn()]
    else:
        columns.insert(0, SpinnerColumn())
    columns.append(TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(standing.what, total=standing.total, completed=standing.done)
        progress.tasks[0].start_time = began
        while not ended.wait(_DRAW_SECONDS):
            progress.update(task, description=standing.what, completed=standing.done, total=standing.total)
