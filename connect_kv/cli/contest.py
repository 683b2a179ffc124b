"""lock, elect: one at a time."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager, suppress

import click

from connect_kv import errors
from connect_kv.cli import output
from connect_kv.cli.progress import waiting
from connect_kv.cli.quantities import WholeSeconds
from connect_kv.cli.settings import ClusterCommand, Settings, pass_settings
from connect_kv.cli.values import data, hex_option
from connect_kv.client.client import Client
from connect_kv.client.lock import Held
from connect_kv.client.messages import KeyValue

LOST_GRACE = 5.0
"""Seconds that a command has to end by itself once the lock it ran under is lost."""

_TTL = click.option(
    "--ttl",
    type=WholeSeconds(),
    default="10s",
    show_default=True,
    help="How long after this process has died the next one is let in.",
)


@click.command(cls=ClusterCommand)
@click.argument("name")
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND...]")
@_TTL
@click.option("--note", help="What `lock --list` shows of this holder.  [default: host:pid]")
@click.option("--list", "list_queue", is_flag=True, help="Only print who holds it and who waits, in order.")
@hex_option
@pass_settings
def lock(
    settings: Settings, name: str, command: tuple[str, ...], ttl: int, note: str | None, list_queue: bool
) -> None:
    """Wait for the lock NAME, run COMMAND and give it back; without COMMAND hold it until interrupted.

    COMMAND finds its key and fencing number in CONNECT_KV_LOCK_KEY and CONNECT_KV_LOCK_REVISION. Its exit
    code is that of this command; if the lock is lost, COMMAND is ended and the exit code is 1.
    """
    key = data(settings, name)
    if list_queue:
        if command:
            raise click.UsageError("give either --list or COMMAND")
        _print_queue(settings, settings.run(lambda client: client.lock(key).queue()))
        return
    if command and shutil.which(command[0]) is None:
        raise click.UsageError(f"{command[0]}: there is no such command, or it may not be run")
    about = f"{socket.gethostname()}:{os.getpid()}" if note is None else note

    async def work(client: Client) -> int:
        async with _in_turn(client.lock(key, ttl=ttl, note=os.fsencode(about)), name) as held:
            if command:
                return await _run(held, command)
            _print_held(settings, held)
            await _until_stopped(held)
            return 0

    sys.exit(settings.run(work))


@click.command(cls=ClusterCommand)
@click.argument("name")
@click.argument("value", required=False, default="")
@_TTL
@click.option("--listen", is_flag=True, help="Only print who leads, and each later leader.")
@hex_option
@pass_settings
def elect(settings: Settings, name: str, value: str, ttl: int, listen: bool) -> None:
    """Become the leader of the election NAME, saying VALUE, and lead until interrupted."""
    key, words = data(settings, name), data(settings, value)
    if listen:
        if value:
            raise click.UsageError("give either --listen or VALUE")
        settings.run(lambda client: _observe(settings, client, key))
        return

    async def work(client: Client) -> None:
        async with _in_turn(client.election(key, words, ttl=ttl), name) as held:
            _print_held(settings, held, words)
            await _until_stopped(held)

    settings.run(work)


@asynccontextmanager
async def _in_turn(contest: AbstractAsyncContextManager[Held], name: str) -> AsyncIterator[Held]:
    """Hold it, once those before have ended; who waits at a terminal sees that."""
    async with AsyncExitStack() as stack:
        with waiting(f"waiting for {name}", quiet=not sys.stderr.isatty()):
            held = await stack.enter_async_context(contest)
        yield held


async def _observe(settings: Settings, client: Client, name: bytes) -> None:
    async with aclosing(client.election(name).observe()) as leaders:
        async for leader in leaders:
            if settings.output == "json":
                output.as_json(output.key_value(leader, settings.hex))
            else:
                output.pairs([leader], settings.hex)


def _print_held(settings: Settings, held: Held, value: bytes | None = None) -> None:
    if settings.output == "json":
        said = {} if value is None else output.named("value", value, settings.hex)
        output.as_json({**output.named("key", held.key, settings.hex), **said, "revision": held.revision})
        return
    output.raw(held.key, settings.hex)
    if value is not None:
        output.raw(value, settings.hex)


def _print_queue(settings: Settings, queue: list[KeyValue]) -> None:
    states = ["holds" if place == 0 else "waits" for place in range(len(queue))]
    told = [
        {"state": state, **output.named("note", kv.value, settings.hex), "key": output.text(kv.key),
         "revision": kv.create_revision, "lease": f"{kv.lease:x}"}
        for state, kv in zip(states, queue, strict=True)
    ]  # fmt: skip
    rows = [
        (state, output.text(kv.value, settings.hex), kv.create_revision, f"{kv.lease:x}")
        for state, kv in zip(states, queue, strict=True)
    ]
    lines = (f"{state} {note or '-'} lease={lease}" for state, note, _, lease in rows)
    output.show(settings.output, told, lines, ["state", "note", "revision", "lease"], rows)


async def _until_stopped(held: Held) -> None:
    """Until SIGTERM or an interrupt. Raises Unavailable if it is lost before."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    waiting = [asyncio.ensure_future(stopped.wait()), asyncio.ensure_future(held.wait_lost())]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in waiting:
            one.cancel()
    if not stopped.is_set():
        raise errors.Unavailable("what was held here is lost: its lease could not be renewed in time")


async def _run(held: Held, command: tuple[str, ...]) -> int:
    """Run a command as long as the lock is held; its exit code."""
    environment = {
        **os.environ,
        "CONNECT_KV_LOCK_KEY": os.fsdecode(held.key),
        "CONNECT_KV_LOCK_REVISION": str(held.revision),
    }
    process = await asyncio.create_subprocess_exec(*command, env=environment)
    loop = asyncio.get_running_loop()
    # An interrupt at the terminal reaches the command by itself; here one only waits for its end.
    interrupt = (lambda: None) if sys.stdin.isatty() else (lambda: _signal(process, signal.SIGINT))
    loop.add_signal_handler(signal.SIGINT, interrupt)
    loop.add_signal_handler(signal.SIGTERM, lambda: _signal(process, signal.SIGTERM))
    ended = asyncio.ensure_future(process.wait())
    lost = asyncio.ensure_future(held.wait_lost())
    try:
        await asyncio.wait((ended, lost), return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            await _end(process)
            raise errors.Unavailable("the lock is lost, and the command was ended: see its own output")
        code = ended.result()
        return code if code >= 0 else 128 - code
    finally:
        lost.cancel()
        ended.cancel()


async def _end(process: Process) -> None:
    _signal(process, signal.SIGTERM)
    with suppress(TimeoutError):
        async with asyncio.timeout(LOST_GRACE):
            await process.wait()
    _signal(process, signal.SIGKILL)
    await process.wait()


def _signal(process: Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        process.send_signal(number)
