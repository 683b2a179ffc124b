"""certs: a private authority, and certificates of members and clients that it signs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import click

from connect_kv.cli import output
from connect_kv.cli.settings import LocalCommand, Settings, pass_settings
from connect_kv.errors import ConfigError

F = TypeVar("F", bound=Callable[..., object])

_folder = click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path),
    default="certs",
    show_default=True,
    envvar="CONNECT_KV_CERTS",
    show_envvar=True,
    help="The folder of the authority and all it signs.",
)


def _days(default: int) -> Callable[[F], F]:
    kind = click.IntRange(1, 36500)
    return click.option("--days", type=kind, default=default, show_default=True, help="How long it is good.")


@click.group()
def certs() -> None:
    """Certificates for TLS: `init` makes a private authority, `node` and `client` what it signs.

    Each is two files, NAME.pem and NAME.key; the keys are readable by you alone, and nothing that is there
    is overwritten. Keep ca.key off the machines that serve: whoever has it can be anybody.
    """


@certs.command()
@_folder
@click.option("--name", default="connect-kv CA", show_default=True, help="What the authority is called.")
@_days(3650)
def init(folder: Path, name: str, days: int) -> None:
    """Make an authority: ca.pem, which all members and clients get, and ca.key, which nobody gets."""
    from connect_kv.authority import make_authority

    _made(make_authority(folder, common_name=name, days=days).cert)


@certs.command()
@click.argument("name")
@_folder
@click.option(
    "--host",
    "hosts",
    multiple=True,
    metavar="HOST",
    help="A name or address the member is reached at; several times.",
)
@_days(365)
def node(name: str, folder: Path, hosts: tuple[str, ...], days: int) -> None:
    """Make a member's certificate, for its name and its hosts. It serves clients and members, and dials."""
    from connect_kv.authority import make_node

    _made(make_node(folder, name, hosts, days=days).cert)


@certs.command()
@click.argument("name")
@_folder
@_days(365)
def client(name: str, folder: Path, days: int) -> None:
    """Make a client's certificate. NAME is the user it stands for, where authentication is on."""
    from connect_kv.authority import make_client

    _made(make_client(folder, name, days=days).cert)


@certs.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@_folder
@click.option("--days", type=click.IntRange(1, 36500), help="How long they are good.  [default: as before]")
def renew(names: tuple[str, ...], folder: Path, days: int | None) -> None:
    """Sign certificates again, from now on, for the same keys and names; `ca` renews the authority.

    A running member takes the new file over by itself.
    """
    from connect_kv.authority import renew as sign_again

    for name in names:
        _made(sign_again(folder, name, days=days).cert)


@certs.command(cls=LocalCommand)
@click.argument("files", nargs=-1, type=click.Path(path_type=Path), metavar="[FILE...]")
@_folder
@pass_settings
def show(settings: Settings, files: tuple[Path, ...], folder: Path) -> None:
    """Print whom certificates are for and until when; all of the folder, or those in FILEs."""
    from connect_kv import certificates

    chosen = files or tuple(sorted(folder.glob("*.pem")))
    if not chosen:
        raise ConfigError(f"{folder}: there is no certificate here yet: see connect-kv certs init")
    rows = []
    for path in chosen:
        try:
            found = certificates.load(path.read_bytes())
        except certificates.BadCertificate as error:
            raise ConfigError(f"{path}: {error}") from None
        for one in found:
            shown = certificates.read(one)
            ends = certificates.expiry(one)
            left = int((ends - datetime.now(UTC).timestamp()) // 86400)
            rows.append((str(path), shown.kind, str(shown), certificates.day(ends), left))
    keys = ("file", "kind", "names", "expires", "days_left")
    told = [dict(zip(keys, row, strict=True)) for row in rows]
    lines = [
        f"{file}: {kind} for {names}, until {until} ({f'{left} days left' if left >= 0 else 'EXPIRED'})"
        for file, kind, names, until, left in rows
    ]
    cells = [[*row[:4], str(row[4])] for row in rows]
    output.show(settings.output, told, lines, ["file", "kind", "for", "expires", "days left"], cells)


def _made(cert: Path) -> None:
    click.echo(f"{cert} and {cert.with_suffix('.key').name}")
