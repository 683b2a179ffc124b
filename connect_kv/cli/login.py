"""login, logout: a token in a file, for later calls."""

from __future__ import annotations

import sys

import click

from connect_kv.cli import logins, output
from connect_kv.cli.settings import ClusterCommand, Settings, pass_settings
from connect_kv.client.endpoints import bare_address, parse_endpoints
from connect_kv.errors import ConfigError


@click.command(cls=ClusterCommand)
@click.argument("name", required=False)
@pass_settings
def login(settings: Settings, name: str | None) -> None:
    """Log in as NAME, or as --user says, and keep the token for later calls to the same members.

    The password comes from --password-file, from CONNECT_KV_PASSWORD, or from you. The token is kept in a
    file that you alone can read ($CONNECT_KV_LOGINS, else ~/.config/connect-kv/logins.json); one that came
    over TLS is never sent without. It ends by itself when it is not used (--auth-token-ttl of the members),
    when the password is changed, or when the members are restarted: then log in again.
    """
    if name:
        settings.user = name
    if not settings.user:
        if not sys.stdin.isatty():
            raise ConfigError("who are you? connect-kv login NAME")
        settings.user = click.prompt("User", err=True)
    user, password = settings.user_and_password()

    async def work() -> logins.SavedLogin:
        async with settings.anonymous() as nobody:
            token = await nobody.auth.login(user, password)
        async with settings.anonymous(token=token) as client:
            found = await client.members()
        known = {bare_address(url) for one in found for url in one.clientURLs}
        given = parse_endpoints(settings.endpoints)
        return logins.SavedLogin(
            endpoints=tuple(sorted({*known, *given})), tls=settings.uses_tls, user=user, token=token
        )

    where = logins.keep(settings.run_alone(work))
    said = f"logged in as {user}; the token is in {where}"
    output.show(settings.output, {"user": user, "file": str(where)}, [said])


@click.command(cls=ClusterCommand)
@pass_settings
def logout(settings: Settings) -> None:
    """Forget the token of this cluster. Who has a copy can use it until it ends by itself."""
    gone = logins.forget(parse_endpoints(settings.endpoints))
    said = [f"{one.user} logged out" for one in gone] or ["nobody was logged in"]
    output.show(settings.output, {"users": [one.user for one in gone]}, said)
