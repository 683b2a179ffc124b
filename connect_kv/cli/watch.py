"""watch: changes as they happen."""

from __future__ import annotations

import click

from connect_kv.cli import output
from connect_kv.cli.settings import ClusterCommand, Settings, pass_settings
from connect_kv.cli.values import data, hex_option
from connect_kv.client.client import Client
from connect_kv.client.messages import Event


@click.command(cls=ClusterCommand)
@click.argument("key")
@click.argument("range_end", required=False, default="")
@click.option("--prefix", is_flag=True, help="All keys that begin with KEY; with an empty KEY all keys.")
@click.option("--rev", "revision", type=int, default=0, help="From this revision on; default: from now.")
@click.option("--prev-kv", is_flag=True, help="Also print what was there before.")
@click.option("--count", type=click.IntRange(min=1), help="End after so many events.")
@hex_option
@pass_settings
def watch(
    settings: Settings,
    key: str,
    range_end: str,
    prefix: bool,
    revision: int,
    prev_kv: bool,
    count: int | None,
) -> None:
    """Print each change of a key, of [KEY, RANGE_END) or of a prefix, until interrupted."""
    if prefix and range_end:
        raise click.UsageError("give only one of RANGE_END and --prefix")

    async def work(client: Client) -> None:
        seen = 0
        async with client.watch(
            data(settings, key),
            data(settings, range_end),
            prefix=prefix,
            start_revision=revision,
            prev_kv=prev_kv,
        ) as changes:
            async for event in changes:
                _print(settings, event)
                seen += 1
                if seen == count:
                    return

    settings.run(work)


def _print(settings: Settings, event: Event) -> None:
    hex = settings.hex
    if settings.output == "json":
        output.as_json(output.event(event, hex))
        return
    kind = "DELETE" if event.type == Event.DELETE else "PUT"
    if settings.output == "table":  # a table has no end to wait for: one aligned line per event
        click.echo(
            f"{event.kv.mod_revision:>10}  {kind:<6}  {output.text(event.kv.key, hex)}"
            + (f"  {output.text(event.kv.value, hex)}" if kind == "PUT" else "")
            + (f"  before: {output.text(event.prev_kv.value, hex)}" if event.HasField("prev_kv") else "")
        )
        return
    click.echo(kind)
    if event.HasField("prev_kv"):
        output.raw(event.prev_kv.key, hex)
        output.raw(event.prev_kv.value, hex)
    output.raw(event.kv.key, hex)
    if kind == "PUT":
        output.raw(event.kv.value, hex)
