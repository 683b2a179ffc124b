"""auth enable, disable, status."""

from __future__ import annotations

from contextlib import suppress

import click

from connect_kv.cli import output
from connect_kv.cli.settings import ClusterCommand, Settings, pass_settings
from connect_kv.client.client import Client
from connect_kv.errors import Refused

ROOT = "root"


@click.group()
def auth() -> None:
    """Whether the cluster asks who calls."""


@auth.command(cls=ClusterCommand)
@pass_settings
def enable(settings: Settings) -> None:
    """Have everybody say who they are from now on. There must be a user root, who may do everything."""

    async def work(client: Client) -> None:
        try:
            await client.auth.enable()
        except Refused as refused:
            if refused.message == "etcdserver: root user does not exist":
                raise Refused(refused.code, f"{refused.message}: connect-kv user add root") from None
            if refused.message != "etcdserver: root user does not have root role":
                raise
            with suppress(Refused):  # it is there already
                await client.auth.add_role(ROOT)
            await client.auth.grant_role(ROOT, ROOT)
            await client.auth.enable()

    settings.run(work)
    _switched(settings, True)


@auth.command(cls=ClusterCommand)
@pass_settings
def disable(settings: Settings) -> None:
    """Ask nobody any more; all tokens end."""
    settings.run(lambda client: client.auth.disable())
    _switched(settings, False)


@auth.command(cls=ClusterCommand)
@pass_settings
def status(settings: Settings) -> None:
    """Print whether it is on, and the auth revision: it rises with every change of users and roles."""
    enabled, revision = settings.run(lambda client: client.auth.status())
    match settings.output:
        case "json":
            output.as_json({"enabled": enabled, "revision": revision})
        case "table":
            output.as_table(["enabled", "revision"], [[str(enabled).lower(), revision]])
        case _:
            click.echo(f"Authentication Status: {str(enabled).lower()}\nAuthRevision: {revision}")


def _switched(settings: Settings, on: bool) -> None:
    if settings.output == "json":
        output.as_json({"enabled": on})
    else:
        click.echo(f"Authentication {'Enabled' if on else 'Disabled'}")
