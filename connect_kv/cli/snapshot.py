"""snapshot save, status, restore."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path

import click

from connect_kv.cli import output
from connect_kv.cli.progress import bar
from connect_kv.cli.serve import server_options
from connect_kv.cli.settings import ClusterCommand, Settings, pass_settings
from connect_kv.client.client import Client
from connect_kv.statemachine.hosted import HostedMachine

_FILE = click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
_MACHINE = click.option(
    "--machine",
    "machines",
    metavar="NAME=module:Class",
    multiple=True,
    help="With --data-dir: a replicated class the node hosted; may be given several times.",
)


@click.group()
def snapshot() -> None:
    """Backups: take one from a running or a stopped node, look at it, restore it into a new cluster."""


@snapshot.command(cls=ClusterCommand)
@_FILE
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Of a stopped node, when no cluster is left to ask.",
)
@_MACHINE
@click.option("--force", is_flag=True, help="Replace FILE if it exists, once all is written.")
@pass_settings
def save(
    settings: Settings, file: Path, data_dir: Path | None, machines: tuple[str, ...], force: bool
) -> None:
    """Write everything the cluster holds to FILE.

    Asks the first of the endpoints that answers; the cluster goes on meanwhile. With the majority lost
    for good, --data-dir makes it from the directory of a stopped node: take that whose log goes furthest
    (`connect-kv inspect`).
    """
    from connect_kv.backup import stopped

    with bar(f"saving {file.name}", quiet=settings.quiet) as progress:
        if data_dir is None:
            settings.run(lambda client: _save(client, file, progress, force))
        else:
            asyncio.run(stopped.save_stopped(data_dir, file, _machines(machines), progress, replace=force))
    _show(settings, file)


@snapshot.command(cls=ClusterCommand)
@_FILE
@pass_settings
def status(settings: Settings, file: Path) -> None:
    """Read and check all of FILE, and say what it holds."""
    _show(settings, file)


@snapshot.command(cls=ClusterCommand)
@_FILE
@server_options(
    "name", "data_dir", "listen_peer", "advertise_peer", "initial_cluster", "initial_cluster_token", "config"
)
@click.option(
    "--bump-revision",
    type=click.IntRange(min=0, max=1 << 62),
    default=0,
    metavar="N",
    help="Raise the revision by N and compact all before it: more than the old cluster can have gone on.",
)
@pass_settings
def restore(settings: Settings, /, file: Path, bump_revision: int, **options: object) -> None:
    """Make the data directory of one member of a new cluster from FILE.

    Do so for each member, with the same file, --initial-cluster and --bump-revision; then start them
    with the same --initial-cluster.
    """
    from connect_kv.backup import restoring
    from connect_kv.config import from_options

    found = from_options(options, os.environ)
    with bar(f"restoring {found.name}", quiet=settings.quiet) as progress:
        identity = asyncio.run(restoring.restore(file, found, bump_revision=bump_revision, progress=progress))
    told = {
        "name": identity.name,
        "id": f"{identity.node_id:x}",
        "cluster_id": f"{identity.cluster_id:x}",
        "data_dir": str(found.data_dir),
    }
    line = (
        f"restored {found.data_dir}: member {identity.name} {identity.node_id:x} "
        f"of cluster {identity.cluster_id:x}"
    )
    output.show(settings.output, told, [line])


async def _save(client: Client, file: Path, progress: Callable[[int, int], None], replace: bool) -> None:
    from connect_kv.backup.file import new_file

    done = 0
    with new_file(file, replace=replace) as target:
        async with aclosing(client.maintenance.snapshot()) as pieces:
            async for piece in pieces:
                target.write(piece.blob)
                done += len(piece.blob)
                progress(done, done + piece.remaining_bytes)


def _show(settings: Settings, file: Path) -> None:
    """What the file holds, after it was read and checked."""
    from connect_kv.backup import stopped

    with bar(f"checking {file.name}", quiet=settings.quiet) as progress:
        found = asyncio.run(stopped.contents(file, progress))
    head = found.head
    told = {
        "file": str(file),
        "size": found.size,
        "hash": found.hash,
        "revision": found.revision,
        "compact_revision": found.compacted,
        "keys": found.keys,
        "index": head.last_applied,
        "cluster_id": f"{head.cluster_id:x}",
        "member": head.name,
        "taken": _time(head.taken),
        "version": head.version,
    }
    facts = [
        ("file", str(file)),
        ("size", output.size(found.size)),
        ("hash", f"{found.hash:08x}"),
        ("revision", str(found.revision)),
        ("keys", str(found.keys)),
        ("index", str(head.last_applied)),
        ("taken", f"{_time(head.taken)} from {head.name} of cluster {head.cluster_id:x}"),
    ]
    output.facts(settings.output, told, facts)


def _time(nanoseconds: int) -> str:
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _machines(specs: tuple[str, ...]) -> dict[str, HostedMachine]:
    from connect_kv.config import load
    from connect_kv.server.process import load_machines

    return load_machines(load({"machines": specs}, {}).machines)
