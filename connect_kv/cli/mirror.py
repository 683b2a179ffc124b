"""mirror: follow a running etcd or connect-kv into another, and prove at the end that both hold the same."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import TYPE_CHECKING

import click

from connect_kv.cli import output
from connect_kv.cli.progress import waiting
from connect_kv.cli.settings import ClusterCommand, Settings, pass_settings
from connect_kv.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from connect_kv.client.client import Client
    from connect_kv.mirror import Compared, Mirror

_ETCD = "etcd://"
_TELL_SECONDS = 2.0
_LOOK_SECONDS = 0.5


@click.command(cls=ClusterCommand)
@click.option("--from", "source", required=True, metavar="[etcd://]HOST:PORT,...", help="What is followed.")
@click.option(
    "--to", "target", required=True, metavar="[etcd://]HOST:PORT,...", help="What is to hold the same."
)
@click.option("--from-user", metavar="NAME:PASSWORD", help="The user who reads there, if users log in.")
@click.option("--to-user", metavar="NAME:PASSWORD", help="The user who writes there, if users log in.")
@click.option(
    "--overwrite", is_flag=True, help="The target may hold keys: those that the source lacks are deleted."
)
@click.option("--switch", is_flag=True, help="End once it has caught up; stop all writers before.")
@pass_settings
@click.pass_context
def mirror(
    context: click.Context,
    settings: Settings,
    /,
    source: str,
    target: str,
    from_user: str | None,
    to_user: str | None,
    overwrite: bool,
    switch: bool,
) -> None:
    """Copy all keys with their leases, then follow every change: each transaction as one transaction.

    etcd:// stands before the addresses of an etcd. While it runs it says how far behind it is. To switch:
    end the writers, then Ctrl-C (or --switch from the beginning): it catches up, reads both and compares
    them. Exit code 0: they hold the same; 1: they do not, and what differs is named.

    Revisions, versions, older history and users are not mirrored: `import-etcd` takes these over.
    """
    files = settings.files

    def client(addresses: str, user: str | None) -> Client:
        from connect_kv.client.client import connect
        from connect_kv.client.etcd import connect_etcd

        name, _, password = (user or "").partition(":")
        login = {"user": name, "password": password} if name else {}
        if addresses.startswith(_ETCD):
            return connect_etcd(addresses.removeprefix(_ETCD), timeout=settings.timeout, tls=files, **login)
        return connect(addresses, timeout=settings.timeout, session=False, tls=files, **login)  # type: ignore[arg-type]  # texts, by the names of the parameters

    if source == target:
        raise ConfigError("--from and --to name the same members")

    async def work() -> Compared:
        from connect_kv.mirror import Mirror

        async with client(source, from_user) as ours, client(target, to_user) as theirs:
            with waiting("copying", quiet=False, every=_TELL_SECONDS) as say:
                return await _run(Mirror(ours, theirs), overwrite=overwrite, switch=switch, say=say)

    found = settings.run_alone(work)
    _show(settings, found)
    context.exit(1 if found.differences else 0)


async def _run(mirror: Mirror, *, overwrite: bool, switch: bool, say: Callable[[str], None]) -> Compared:
    """Mirror until interrupted or switched over; returns how the two compare then."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    if switch:
        ended.set()
    following = asyncio.create_task(mirror.run(overwrite=overwrite))
    telling = asyncio.create_task(_tell(mirror, say))
    asked = asyncio.create_task(ended.wait())
    try:
        await asyncio.wait({following, asked}, return_when=asyncio.FIRST_COMPLETED)
        caught = asyncio.create_task(mirror.caught_up())
        try:
            await asyncio.wait({following, caught}, return_when=asyncio.FIRST_COMPLETED)
            if following.done():
                _raise(following)
            return await mirror.compare()
        finally:
            caught.cancel()
    finally:
        for task in (following, telling, asked):
            task.cancel()
        await asyncio.gather(following, telling, asked, return_exceptions=True)


def _raise(following: asyncio.Task[None]) -> None:
    """It goes on until it is cancelled, or fails: with one error of a group."""
    error = following.exception()
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if error is not None:
        raise error


async def _tell(mirror: Mirror, say: Callable[[str], None]) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        while True:
            at = mirror.standing
            if not at.revision:
                say(f"copied {at.copied} keys")
            else:
                say(
                    f"at revision {at.revision} of {at.head}, {at.behind} behind; {at.copied} keys copied, "
                    f"{at.changes} changes followed, {at.leases} leases"
                )
            await asyncio.sleep(_LOOK_SECONDS)


def _show(settings: Settings, found: Compared) -> None:
    if settings.output == "json":
        output.as_json(
            {
                "equal": not found.differences,
                "keys": found.keys,
                "source_revision": found.source_revision,
                "target_revision": found.target_revision,
                "differences": found.differences,
            }
        )
        return
    where = f"{found.keys} keys, revision {found.source_revision} there and {found.target_revision} here"
    click.echo(f"{'different' if found.differences else 'equal'}: {where}")
    for difference in found.differences:
        click.echo(difference)
