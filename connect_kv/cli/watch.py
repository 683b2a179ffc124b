"""watch: changes as they happen."""

from __future__ import annotations

import click

from connect_kv.cli import output
from connect_kv.cli.settings import ClusterCommand, Settings, pass_settings
from connect_kv.client.client import Client
from connect_kv.client.messages import Event


@click.command(cls=ClusterCommand)
@click.argument("key")
@click.argument("range_end", required=False, default="")
@click.option("--prefix", is_flag=True, help="All keys that begin with KEY; with an empty KEY all keys.")
@click.option("--rev", "revision", type=int, default=0, help="From this revision on; default: from now.")
@click.option("--prev-kv", is_flag=True, help="Also print what was there before.")
@click.option("--count", type=click.IntRange(min=1), help="End after so many events.")
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
            key, range_end, prefix=prefix, start_revision=revision, prev_kv=prev_kv
        ) as changes:
            async for event in changes:
                _print(settings.output, event)
                seen += 1
                if seen == count:
                    return

    settings.run(work)


def _print(form: str, event: Event) -> None:
    if form == "json":
        output.as_json(output.event(event))
        return
    kind = "DELETE" if event.type == Event.DELETE else "PUT"
    if form == "table":  # a table has no end to wait for: one aligned line per event
        click.echo(
            f"{event.kv.mod_revision:>10}  {kind:<6}  {output.text(event.kv.key)}"
            + (f"  {output.text(event.kv.value)}" if kind == "PUT" else "")
            + (f"  before: {output.text(event.prev_kv.value)}" if event.HasField("prev_kv") else "")
        )
        return
    click.echo(kind)
    if event.HasField("prev_kv"):
        output.raw(event.prev_kv.key)
        output.raw(event.prev_kv.value)
    output.raw(event.kv.key)
    if kind == "PUT":
        output.raw(event.kv.value)
