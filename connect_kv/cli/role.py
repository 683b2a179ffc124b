"""role add, delete, get, list, grant-permission, revoke-permission."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import click

from connect_kv.cli import output
from connect_kv.cli.settings import ClusterCommand, Settings, pass_settings
from connect_kv.client.auth import COMMAND, QUERY, READ, READWRITE, WRITE, AuthRole
from connect_kv.client.ranges import EVERYTHING, prefix_end, span

KEYS = {"read": READ, "write": WRITE, "readwrite": READWRITE}
MACHINES = {"query": QUERY, "command": COMMAND}
_KEY_WORDS = {kind: word for word, kind in KEYS.items()}
_MACHINE_WORDS = {kind: word for word, kind in MACHINES.items()}
ALL_MACHINES = "*"

_prefix = click.option("--prefix", is_flag=True, help="All keys that begin with KEY.")
_from_key = click.option("--from-key", is_flag=True, help="All keys from KEY on.")
_machine = click.option(
    "--machine", metavar="NAME", help=f"A replicated machine instead of keys; {ALL_MACHINES!r}: every one."
)


@click.group()
def role() -> None:
    """Roles: rights on keys and machines, to be granted to users."""


@role.command(cls=ClusterCommand)
@click.argument("name")
@pass_settings
def add(settings: Settings, name: str) -> None:
    """Add role NAME, which may do nothing yet."""
    settings.run(lambda client: client.auth.add_role(name))
    _done(settings, name, f"Role {name} created", created=True)


@role.command(cls=ClusterCommand)
@click.argument("name")
@pass_settings
def delete(settings: Settings, name: str) -> None:
    """Delete role NAME; nobody holds it any more."""
    settings.run(lambda client: client.auth.delete_role(name))
    _done(settings, name, f"Role {name} deleted", deleted=True)


@role.command(cls=ClusterCommand)
@click.argument("name")
@pass_settings
def get(settings: Settings, name: str) -> None:
    """Print what role NAME may do."""
    found = settings.run(lambda client: client.auth.role(name))
    rows = [
        [name, _KEY_WORDS.get(one.permType, "?"), _range(one.key, one.range_end), ""]
        for one in found.permissions
    ]
    rows += [
        [name, _MACHINE_WORDS.get(one.permType, "?"), "", one.machine or ALL_MACHINES]
        for one in found.machines
    ]
    columns = ["role", "right", "keys", "machine"]
    output.show(settings.output, as_dict(found), as_lines(found), columns, rows)


@role.command("list", cls=ClusterCommand)
@pass_settings
def list_roles(settings: Settings) -> None:
    """Print the names of all roles."""
    show_names(settings, "role", settings.run(lambda client: client.auth.roles()))


@role.command("grant-permission", cls=ClusterCommand)
@click.argument("name")
@click.argument("right", type=click.Choice((*KEYS, *MACHINES)))
@click.argument("key", required=False)
@click.argument("range_end", required=False)
@_prefix
@_from_key
@_machine
@pass_settings
def grant_permission(
    settings: Settings,
    name: str,
    right: str,
    key: str | None,
    range_end: str | None,
    prefix: bool,
    from_key: bool,
    machine: str | None,
) -> None:
    """Let role NAME read, write or readwrite KEY, or the keys from KEY up to RANGE_END.

    With --machine: query that machine, or send it a command (and queries).
    """
    if (right in MACHINES) is (machine is None):
        raise click.UsageError("query and command go with --machine NAME, the other rights with keys")
    if machine is not None:
        _no_keys(key, prefix, from_key)
        named = "" if machine == ALL_MACHINES else machine
        settings.run(lambda client: client.auth.grant_machine(name, MACHINES[right], named))
    else:
        start, end = _span(key, range_end, prefix, from_key)
        settings.run(lambda client: client.auth.grant(name, KEYS[right], start, end))
    _done(settings, name, f"Role {name} updated", updated=True)


@role.command("revoke-permission", cls=ClusterCommand)
@click.argument("name")
@click.argument("key", required=False)
@click.argument("range_end", required=False)
@_prefix
@_from_key
@_machine
@pass_settings
def revoke_permission(
    settings: Settings,
    name: str,
    key: str | None,
    range_end: str | None,
    prefix: bool,
    from_key: bool,
    machine: str | None,
) -> None:
    """Take from role NAME the right on exactly KEY, exactly those keys, or that machine."""
    if machine is not None:
        _no_keys(key, prefix, from_key)
        named = "" if machine == ALL_MACHINES else machine
        settings.run(lambda client: client.auth.revoke_machine(name, named))
        what = f"machine {machine}"
    else:
        start, end = _span(key, range_end, prefix, from_key)
        settings.run(lambda client: client.auth.revoke(name, start, end))
        what = f"range {_range(start, end, prefixes=False)}" if end else f"key {output.text(start)}"
    _done(settings, name, f"Permission of {what} is revoked from role {name}", revoked=True)


def as_lines(role: AuthRole) -> Iterator[str]:
    """As etcdctl prints it; machines after the keys, where there are any."""
    yield f"Role {role.name}"
    for title, kind in (("KV Read:", READ), ("KV Write:", WRITE)):
        yield title
        for one in role.permissions:
            if one.permType in (kind, READWRITE):
                yield f"\t{_range(one.key, one.range_end)}"
    if role.machines:
        for title, kinds in (("Machine Query:", (QUERY, COMMAND)), ("Machine Command:", (COMMAND,))):
            yield title
            for right in role.machines:
                if right.permType in kinds:
                    yield f"\t{right.machine or ALL_MACHINES}"


def as_dict(role: AuthRole) -> Mapping[str, object]:
    """A role and its rights, to be printed as JSON."""
    return {
        "role": role.name,
        "permissions": [
            {
                "right": _KEY_WORDS.get(one.permType, one.permType),
                **output.named("key", one.key),
                **(output.named("range_end", one.range_end) if one.range_end else {}),
            }
            for one in role.permissions
        ],
        "machines": [
            {"right": _MACHINE_WORDS.get(one.permType, one.permType), "machine": one.machine or ALL_MACHINES}
            for one in role.machines
        ],
    }


def _range(key: bytes, range_end: bytes, *, prefixes: bool = True) -> str:
    start = output.text(key)
    if not range_end:
        return start
    if range_end == EVERYTHING:
        return f"[{start}, <open ended>"
    prefix = f" (prefix {start})" if prefixes and prefix_end(key) == range_end else ""
    return f"[{start}, {output.text(range_end)}){prefix}"


def _span(key: str | None, range_end: str | None, prefix: bool, from_key: bool) -> tuple[bytes, bytes]:
    if key is None:
        raise click.UsageError("which key? KEY, KEY RANGE_END, KEY --prefix or KEY --from-key; or --machine")
    if sum((range_end is not None, prefix, from_key)) > 1:
        raise click.UsageError("RANGE_END, --prefix and --from-key exclude each other")
    if from_key:
        return key.encode() or b"\0", EVERYTHING
    return span(key, range_end or "", prefix)


def _no_keys(key: str | None, prefix: bool, from_key: bool) -> None:
    if key is not None or prefix or from_key:
        raise click.UsageError("--machine stands instead of keys")


def show_names(settings: Settings, kind: str, names: Sequence[str]) -> None:
    """All roles, or all users."""
    output.show(settings.output, [{kind: one} for one in names], names, [kind], [[one] for one in names])


def _done(settings: Settings, name: str, text: str, **what: object) -> None:
    output.show(settings.output, {"role": name, **what}, [text])
