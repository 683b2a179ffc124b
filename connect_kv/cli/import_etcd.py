"""import-etcd: what an etcd holds becomes the data directory of a member of a new cluster."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable
from contextlib import aclosing, contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from connect_kv.cli import output
from connect_kv.cli.progress import bar
from connect_kv.cli.serve import server_options
from connect_kv.cli.settings import ClusterCommand, Settings, pass_settings
from connect_kv.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from connect_kv.backup.moving_in import Report


@click.command(cls=ClusterCommand)
@click.argument("source", type=click.Path(path_type=Path, exists=True), required=False)
@server_options(
    "name", "data_dir", "listen_peer", "advertise_peer", "initial_cluster", "initial_cluster_token", "config"
)
@click.option(
    "--wal-dir",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Where the log of an etcd's data directory is, if not in it.",
)
@click.option("--skip-hash-check", is_flag=True, help="Take a file without digest, or with a wrong one.")
@click.option(
    "--bump-revision",
    type=click.IntRange(min=0, max=1 << 62),
    default=0,
    metavar="N",
    help="Raise the revision by N and compact all before it.",
)
@pass_settings
def import_etcd(
    settings: Settings,
    /,
    source: Path | None,
    wal_dir: Path | None,
    skip_hash_check: bool,
    bump_revision: int,
    **options: object,
) -> None:
    """Make the data directory of a member of a new cluster from what an etcd holds.

    SOURCE is a snapshot of etcd 3.4 to 3.7 (`etcdctl snapshot save`), or the data directory of an etcd that
    was stopped. Without it, a snapshot is taken from the etcd at --endpoints. Keys with their whole history,
    leases, users, roles and the revision are taken over, and compared.

    For a cluster of several members do so for each, from the same source with the same --initial-cluster;
    then start them with the same --initial-cluster.
    """
    from connect_kv.backup import moving_in
    from connect_kv.config import from_options

    if (source is None) != ("endpoints" in settings.given):
        raise click.UsageError("expected either SOURCE or --endpoints")
    found = from_options(options, os.environ)
    taken = _snapshot(settings, found.data_dir) if source is None else nullcontext(source)
    with taken as path, bar(f"importing {path.name}", quiet=settings.quiet) as progress:
        report = asyncio.run(
            moving_in.import_etcd(
                path,
                found,
                wal_dir=wal_dir,
                check_digest=not skip_hash_check,
                bump_revision=bump_revision,
                progress=progress,
            )
        )
    _show(settings, report, found.data_dir)


@contextmanager
def _snapshot(settings: Settings, data_dir: Path) -> Iterator[Path]:
    """Take one from the etcd at the endpoints, beside the new directory; it is deleted afterwards."""
    data_dir.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{data_dir.name}.", dir=data_dir.parent) as directory:
        path = Path(directory) / "snapshot"
        with bar(f"from {settings.endpoints}", quiet=settings.quiet) as progress:
            settings.run_alone(lambda: _take(settings, path, progress))
        yield path


async def _take(settings: Settings, path: Path, progress: Callable[[int, int], None]) -> None:
    from connect_kv.client.etcd import connect_etcd

    user, password = settings.user_and_password() if settings.user else ("", None)
    client = connect_etcd(
        settings.endpoints, timeout=settings.timeout, tls=settings.files, user=user, password=password
    )
    done = 0
    async with client:
        with path.open("wb") as file:
            async with aclosing(client.maintenance.snapshot()) as pieces:
                async for piece in pieces:
                    file.write(piece.blob)
                    done += len(piece.blob)
                    progress(done, done + piece.remaining_bytes)
    if not done:
        raise ConfigError(f"{settings.endpoints}: sent no snapshot")


def _show(settings: Settings, report: Report, data_dir: Path) -> None:
    identity = report.identity
    assert identity is not None
    told = asdict(report)
    del told["identity"]
    told |= {
        "name": identity.name,
        "id": f"{identity.node_id:x}",
        "cluster_id": f"{identity.cluster_id:x}",
        "data_dir": str(data_dir),
    }
    facts = [
        ("keys", str(report.keys)),
        ("changes", f"{report.changes}, since revision {max(report.compacted, 1)}"),
        ("revision", str(report.revision)),
        ("leases", str(report.leases)),
        ("users", f"{report.users}, roles {report.roles}, authentication {_on(report.auth_enabled)}"),
        ("HashKV", f"{report.etcd_hash} of etcd's file, {report.hash} of what was made of it: equal"),
        ("left behind", ", ".join(report.left_behind) or "nothing"),
        ("directory", f"{data_dir}: member {identity.name} {identity.node_id:x}"),
    ]
    output.facts(settings.output, told, facts)


def _on(enabled: bool) -> str:
    return "on" if enabled else "off"
