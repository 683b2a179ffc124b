"""top: the cluster at a glance, again and again."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import click

from connect_kv.cli import output, status
from connect_kv.cli.quantities import Duration
from connect_kv.cli.settings import ClusterCommand, Settings, pass_settings

if TYPE_CHECKING:
    from rich.console import Console

    from connect_kv.cli.overview import Overview
    from connect_kv.client.client import Client

_PLAIN_COLUMNS = 80
"""Width of frames that go into a file or a pipe."""


@click.command(cls=ClusterCommand)
@click.option(
    "--interval",
    type=Duration(above=0),
    default="2s",
    show_default=True,
    help="Time from one look to the next; rates are those in between.",
)
@click.option("--once", is_flag=True, help="Look twice, an interval apart, print what was seen, and end.")
@pass_settings
def top(settings: Settings, interval: float, once: bool) -> None:
    """Show the whole cluster live in this terminal, until Ctrl-C.

    For each member: whether it leads, term, index, how many entries it lags behind, the size of its
    database, its version, the difference of its clock to the leader's; then puts applied, ranges answered,
    events sent to watches and calls of clients a second, how long an fsync of its log takes; and below what
    is wrong and what to do about it. A member that does not answer is shown as down.

    States come over gRPC, rates from /metrics on the clients' port; of a member that does not answer there
    they are a dash. Into a file or a pipe the frames are plain text, with -o json lines of JSON. --once
    exits 1 unless all is well.
    """
    # A member that is gone must not stop the picture for long.
    patient = replace(settings, timeout=min(settings.timeout, max(interval, 1.0)))
    if once:
        found = patient.run(lambda client: _second(patient, client, interval))
        _print(settings, found, _plain_console())
        if not found.healthy:
            sys.exit(1)
        return
    with contextlib.suppress(KeyboardInterrupt):  # that is how it ends
        patient.run(lambda client: _run(patient, client, interval))


async def _looks(settings: Settings, client: Client, interval: float) -> AsyncIterator[Overview]:
    """One overview after the other, each an interval after the one before began."""
    from connect_kv.cli.overview import ClusterObserver

    observer, clock = ClusterObserver(settings), asyncio.get_running_loop()
    while True:
        began = clock.time()
        yield await observer.look(client)
        await asyncio.sleep(max(0.0, began + interval - clock.time()))


async def _second(settings: Settings, client: Client, interval: float) -> Overview:
    async with contextlib.aclosing(_looks(settings, client, interval)) as looks:  # type: ignore[type-var]
        first = await anext(looks)
        return await anext(looks) if any(one.row.status for one in first.members) else first


async def _run(settings: Settings, client: Client, interval: float) -> None:
    console = _plain_console()
    if settings.output == "json" or not console.is_terminal:
        async for found in _looks(settings, client, interval):
            _print(settings, found, console)
            sys.stdout.flush()
        return
    from rich.live import Live

    from connect_kv.cli.top_view import frame

    with Live(console=console, screen=True, auto_refresh=False, vertical_overflow="crop") as live:
        async for found in _looks(settings, client, interval):
            live.update(frame(found), refresh=True)


def _print(settings: Settings, found: Overview, console: Console) -> None:
    from connect_kv.cli.top_view import frame

    if settings.output == "json":
        output.as_json(_as_json(found))
    else:
        console.print(frame(found))
        if not console.is_terminal:
            console.print()


def _plain_console() -> Console:
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else _PLAIN_COLUMNS, highlight=False)


def _as_json(found: Overview) -> dict[str, object]:
    rows = [one.row for one in found.members]
    return {
        "time": round(found.at, 3),
        "healthy": found.healthy,
        "members": [
            {**of, "rates": asdict(one.work), "clock_difference": one.clock}
            for of, one in zip(status.as_json(rows), found.members, strict=True)
        ],
        "advice": [asdict(one) for one in found.advice],
    }
