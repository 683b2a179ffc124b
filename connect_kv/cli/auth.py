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
    state = str(enabled).lower()
    output.show(
        settings.output,
        {"enabled": enabled, "revision": revision},
        [f"Authentication Status: {state}", f"AuthRevision: {revision}"],
        ["enabled", "revision"],
        [[state, revision]],
    )


def _switched(settings: Settings, on: bool) -> None:
    output.show(settings.output, {"enabled": on}, [f"Authentication {'Enabled' if on else 'Disabled'}"])
