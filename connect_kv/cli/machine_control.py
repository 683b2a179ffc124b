"""machine status, skip, retire, host."""

from __future__ import annotations

import click

from connect_kv.cli import output
from connect_kv.cli.settings import ClusterCommand, Settings, pass_settings
from connect_kv.client.messages import MachineMember, MachineState


@click.group()
def machine() -> None:
    """Replicated machines: their versions, and what to do with one that stopped."""


@machine.command(cls=ClusterCommand)
@click.argument("name", required=False)
@pass_settings
def status(settings: Settings, name: str | None) -> None:
    """Show each machine, or NAME, on each member: its versions, and why it does not go on."""
    members = settings.run(lambda client: client.machine_status(name or ""))
    if settings.output == "json":
        output.as_json([_as_json(member) for member in members])
        return
    rows = [
        [
            member.name,
            one.name,
            str(one.version or "-"),
            str(one.newest or "-"),
            str(one.needed or "-"),
            _state(one),
        ]
        for member in members
        for one in member.machines
    ]
    rows += [[member.name, "-", "-", "-", "-", member.problem] for member in members if member.problem]
    output.as_table(["member", "machine", "active", "newest", "needed from", "state"], rows)


@machine.command(cls=ClusterCommand)
@click.argument("name")
@click.option("--entry", type=click.IntRange(min=1), required=True, help="The entry at which it stopped.")
@pass_settings
def skip(settings: Settings, name: str, entry: int) -> None:
    """Decide for all members that the command of an entry which stopped NAME is not run.

    Refused unless a majority stopped there, and nobody has run it.
    """
    settings.run(lambda client: client.skip_command(name, entry))


@machine.command(cls=ClusterCommand)
@click.argument("name")
@pass_settings
def retire(settings: Settings, name: str) -> None:
    """End NAME on all members; its state is deleted, its calls are refused."""
    settings.run(lambda client: client.retire_machine(name))


@machine.command(cls=ClusterCommand)
@click.argument("name")
@pass_settings
def host(settings: Settings, name: str) -> None:
    """Begin NAME, which was retired, again: with its first state."""
    settings.run(lambda client: client.host_machine(name))


def _state(one: MachineState) -> str:
    if one.retired:
        return "retired"
    if one.suspended:
        at = f" at entry {one.index}" if one.index else ""
        return f"suspended{at}: {one.suspended}"
    if not one.version:
        return f"not begun: {one.waits}" if one.waits else "not begun"
    return f"runs; {one.waits}" if one.waits else "runs"


def _as_json(member: MachineMember) -> dict[str, object]:
    machines = [
        {
            "name": one.name,
            "version": one.version,
            "newest": one.newest,
            "needed": one.needed,
            "suspended": one.suspended,
            "entry": one.index,
            "command": one.position,
            "retired": one.retired,
            "waits": one.waits,
        }
        for one in member.machines
    ]
    return {"member": member.name, "machines": machines, "problem": member.problem}
