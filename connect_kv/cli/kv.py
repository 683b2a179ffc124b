"""put, get, del, compact."""

from __future__ import annotations

import sys

import click

from connect_kv.cli import output
from connect_kv.cli.progress import waiting
from connect_kv.cli.settings import ClusterCommand, Settings, pass_settings
from connect_kv.cli.values import HexId, data, hex_option
from connect_kv.client.messages import RangeRequest, SortOrder, SortTarget


@click.command(cls=ClusterCommand)
@click.argument("key")
@click.argument("value", required=False)
@click.option("--lease", type=HexId("lease"), default=0, help="Attach the key to this lease (hexadecimal).")
@click.option("--prev-kv", is_flag=True, help="Also print what was there before.")
@click.option("--ignore-value", is_flag=True, help="Keep the present value; only change the lease.")
@click.option("--ignore-lease", is_flag=True, help="Keep the key's present lease.")
@hex_option
@pass_settings
def put(
    settings: Settings,
    key: str,
    value: str | None,
    lease: int,
    prev_kv: bool,
    ignore_value: bool,
    ignore_lease: bool,
) -> None:
    """Store VALUE under KEY. Without VALUE it is read from standard input, as it is."""
    content = _given(settings, value, ignore_value)

    answer = settings.run(
        lambda client: client.put(
            data(settings, key),
            content,
            lease=lease,
            prev_kv=prev_kv,
            ignore_value=ignore_value,
            ignore_lease=ignore_lease,
        )
    )
    before = [answer.prev_kv] if answer.HasField("prev_kv") else []
    match settings.output:
        case "json":
            found: dict[str, object] = {"revision": answer.header.revision}
            if before:
                found["prev_kv"] = output.key_value(before[0], settings.hex)
            output.as_json(found)
        case "table":
            output.as_table(["key", "revision"], [[key, answer.header.revision]])
            if before:
                output.key_values(before, settings.hex)
        case _:
            click.echo("OK")
            output.pairs(before, settings.hex)


SORTS: dict[str, SortTarget] = {
    "key": RangeRequest.KEY,
    "version": RangeRequest.VERSION,
    "create": RangeRequest.CREATE,
    "modify": RangeRequest.MOD,
    "value": RangeRequest.VALUE,
}


@click.command(cls=ClusterCommand)
@click.argument("key")
@click.argument("range_end", required=False, default="")
@click.option("--prefix", is_flag=True, help="All keys that begin with KEY; with an empty KEY all keys.")
@click.option("--from-key", is_flag=True, help="All keys from KEY on.")
@click.option("--rev", "revision", type=int, default=0, help="As of this revision.")
@click.option("--limit", type=int, default=0, help="At most so many keys.")
@click.option("--order", type=click.Choice(["ascend", "descend"]), help="Sort the keys.")
@click.option("--sort-by", type=click.Choice(list(SORTS)), help="What to sort by.")
@click.option("--keys-only", is_flag=True, help="Leave out the values.")
@click.option("--count-only", is_flag=True, help="Only say how many there are.")
@click.option("--print-value-only", is_flag=True, help="Leave out the keys.")
@click.option(
    "--serializable", is_flag=True, help="Take what the asked member has, without asking the leader."
)
@hex_option
@pass_settings
def get(
    settings: Settings,
    key: str,
    range_end: str,
    prefix: bool,
    from_key: bool,
    revision: int,
    limit: int,
    order: str | None,
    sort_by: str | None,
    keys_only: bool,
    count_only: bool,
    print_value_only: bool,
    serializable: bool,
) -> None:
    """Print a key, those in [KEY, RANGE_END), or those with a prefix."""
    start, end = _range(settings, key, range_end, prefix, from_key)
    sort_order: SortOrder = RangeRequest.NONE
    if order or sort_by:
        sort_order = RangeRequest.DESCEND if order == "descend" else RangeRequest.ASCEND

    answer = settings.run(
        lambda client: client.range(
            start,
            end,
            prefix=prefix,
            revision=revision,
            limit=limit,
            sort_order=sort_order,
            sort_target=SORTS[sort_by or "key"],
            keys_only=keys_only,
            count_only=count_only,
            serializable=serializable,
        )
    )
    match settings.output:
        case "json":
            output.as_json(
                {
                    "revision": answer.header.revision,
                    "count": answer.count,
                    "more": answer.more,
                    "kvs": [output.key_value(kv, settings.hex) for kv in answer.kvs],
                }
            )
        case "table" if not count_only:
            output.key_values(answer.kvs, settings.hex)
        case _ if count_only:
            click.echo(answer.count)
        case _:
            for kv in answer.kvs:
                if not print_value_only:
                    output.raw(kv.key, settings.hex)
                if not keys_only:
                    output.raw(kv.value, settings.hex)


@click.command("del", cls=ClusterCommand)
@click.argument("key")
@click.argument("range_end", required=False, default="")
@click.option("--prefix", is_flag=True, help="All keys that begin with KEY.")
@click.option("--from-key", is_flag=True, help="All keys from KEY on.")
@click.option("--prev-kv", is_flag=True, help="Also print what was deleted.")
@hex_option
@pass_settings
def delete(settings: Settings, key: str, range_end: str, prefix: bool, from_key: bool, prev_kv: bool) -> None:
    """Delete a key, those in [KEY, RANGE_END), or those with a prefix; prints how many."""
    start, end = _range(settings, key, range_end, prefix, from_key)

    answer = settings.run(lambda client: client.delete(start, end, prefix=prefix, prev_kv=prev_kv))
    match settings.output:
        case "json":
            found: dict[str, object] = {"revision": answer.header.revision, "deleted": answer.deleted}
            if prev_kv:
                found["prev_kvs"] = [output.key_value(kv, settings.hex) for kv in answer.prev_kvs]
            output.as_json(found)
        case "table":
            output.as_table(["deleted", "revision"], [[answer.deleted, answer.header.revision]])
            if prev_kv:
                output.key_values(answer.prev_kvs, settings.hex)
        case _:
            click.echo(answer.deleted)
            output.pairs(answer.prev_kvs, settings.hex)


@click.command(cls=ClusterCommand)
@click.argument("revision", type=int)
@click.option("--physical", is_flag=True, help="Wait until the space is given back.")
@pass_settings
def compact(settings: Settings, revision: int, physical: bool) -> None:
    """Forget everything before REVISION."""
    with waiting(f"compacting revision {revision}", quiet=settings.quiet):
        settings.run(lambda client: client.compact(revision, physical=physical))
    output.show(settings.output, {"compacted": revision}, [f"compacted revision {revision}"])


def _given(settings: Settings, value: str | None, ignore_value: bool) -> bytes:
    if value is not None:
        return data(settings, value)
    return b"" if ignore_value else sys.stdin.buffer.read()


def _range(settings: Settings, key: str, range_end: str, prefix: bool, from_key: bool) -> tuple[bytes, bytes]:
    if prefix + from_key + bool(range_end) > 1:
        raise click.UsageError("give only one of RANGE_END, --prefix and --from-key")
    start = data(settings, key)
    return (start or b"\0", b"\0") if from_key else (start, data(settings, range_end))
