"""user add, delete, get, list, passwd, grant-role, revoke-role."""

from __future__ import annotations

import click

from connect_kv.cli import output
from connect_kv.cli.passwords import password_of
from connect_kv.cli.role import as_dict, as_lines, show_names
from connect_kv.cli.settings import ClusterCommand, Settings, pass_settings
from connect_kv.client.auth import AuthRole
from connect_kv.client.client import Client

NEW_PASSWORD = "CONNECT_KV_NEW_PASSWORD"
_argv_option = click.option(
    "--new-user-password",
    "in_argv",
    metavar="PASSWORD",
    help="The password itself: everybody on this machine can see it while the command runs.",
)
_file_option = click.option(
    "--new-password-file",
    "file",
    metavar="FILE",
    default="",
    help="The password's file, one line; '-': standard input.",
)


@click.group()
def user() -> None:
    """Users: who may log in, and the roles they hold.

    A new password comes from --new-password-file, from CONNECT_KV_NEW_PASSWORD, or from you.
    """


@user.command(cls=ClusterCommand)
@click.argument("name")
@click.option("--no-password", is_flag=True, help="Only a certificate with that CommonName can be this user.")
@_file_option
@_argv_option
@pass_settings
def add(settings: Settings, name: str, no_password: bool, file: str, in_argv: str | None) -> None:
    """Add user NAME, who has no role yet."""
    if no_password and (file or in_argv is not None):
        raise click.UsageError("--no-password goes with no password")
    password = None if no_password else _new(name, file, in_argv)
    settings.run(lambda client: client.auth.add_user(name, password))
    _done(settings, name, f"User {name} created", created=True)


@user.command(cls=ClusterCommand)
@click.argument("name")
@pass_settings
def delete(settings: Settings, name: str) -> None:
    """Delete user NAME: its tokens die, its watches end."""
    settings.run(lambda client: client.auth.delete_user(name))
    _done(settings, name, f"User {name} deleted", deleted=True)


@user.command(cls=ClusterCommand)
@click.argument("name")
@click.option("--detail", is_flag=True, help="Also what each role may do.")
@pass_settings
def get(settings: Settings, name: str, detail: bool) -> None:
    """Print the roles that user NAME holds."""

    async def work(client: Client) -> tuple[list[str], list[AuthRole]]:
        held = await client.auth.user(name)
        return held, [await client.auth.role(one) for one in held] if detail else []

    held, roles = settings.run(work)
    match settings.output:
        case "json":
            found: dict[str, object] = {"user": name, "roles": held}
            if detail:
                found["rights"] = [as_dict(one) for one in roles]
            output.as_json(found)
        case "table":
            output.as_table(["user", "roles"], [[name, "\n".join(held)]])
        case _:
            click.echo(f"User: {name}")
            if not detail:
                click.echo(f"Roles: {' '.join(held)}")
            for one in roles:
                click.echo("\n" + "\n".join(as_lines(one)))


@user.command("list", cls=ClusterCommand)
@pass_settings
def list_users(settings: Settings) -> None:
    """Print the names of all users."""
    show_names(settings, "user", settings.run(lambda client: client.auth.users()))


@user.command(cls=ClusterCommand)
@click.argument("name")
@_file_option
@_argv_option
@pass_settings
def passwd(settings: Settings, name: str, file: str, in_argv: str | None) -> None:
    """Give user NAME another password; its tokens end."""
    password = _new(name, file, in_argv)
    settings.run(lambda client: client.auth.change_password(name, password))
    _done(settings, name, "Password updated", updated=True)


@user.command("grant-role", cls=ClusterCommand)
@click.argument("name")
@click.argument("role")
@pass_settings
def grant_role(settings: Settings, name: str, role: str) -> None:
    """Have user NAME hold ROLE."""
    settings.run(lambda client: client.auth.grant_role(name, role))
    _done(settings, name, f"Role {role} is granted to user {name}", role=role, granted=True)


@user.command("revoke-role", cls=ClusterCommand)
@click.argument("name")
@click.argument("role")
@pass_settings
def revoke_role(settings: Settings, name: str, role: str) -> None:
    """Take ROLE from user NAME."""
    settings.run(lambda client: client.auth.revoke_role(name, role))
    _done(settings, name, f"Role {role} is revoked from user {name}", role=role, revoked=True)


def _new(name: str, file: str, in_argv: str | None) -> str:
    if in_argv is not None:
        if file:
            raise click.UsageError("give --new-user-password or --new-password-file")
        return in_argv
    if ":" in name:
        raise click.UsageError(
            "the name holds a ':', and a password does not belong on the command line: leave it out and be "
            "asked, or use --new-password-file; where the ':' is part of the name, --new-user-password"
        )
    return password_of(name, file=file, file_option="--new-password-file", variable=NEW_PASSWORD, again=True)


def _done(settings: Settings, name: str, text: str, **what: object) -> None:
    output.show(settings.output, {"user": name, **what}, [text])
