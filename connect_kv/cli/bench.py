"""bench: how fast a cluster is, ours or etcd's."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

import click
import uvloop

from connect_kv.bench import load, report, streams, targets, workloads
from connect_kv.bench.access import BenchAccess
from connect_kv.cli import output
from connect_kv.cli.progress import counting
from connect_kv.cli.quantities import Size
from connect_kv.cli.settings import ClusterCommand, Settings, pass_settings
from connect_kv.credentials import Tls

STREAMED = ("watch", "lease-keep-alive")
_CALLS = frozenset({"callers", "clients", "total", "rate", "door"})
_KEYS = _CALLS | {"key_space", "first"}
OPTIONS: Mapping[str, frozenset[str]] = {
    "put": _KEYS | {"value_size"},
    "range": _KEYS,
    "serializable": _KEYS,
    "mixed": _KEYS | {"value_size"},
    "txn": _CALLS | {"first", "value_size"},
    "counter": _CALLS | {"machine"},
    "watch": frozenset({"watchers", "total", "value_size"}),
    "lease-keep-alive": frozenset({"callers", "total"}),
}
"""What means something to each workload; the others are refused, so that nobody believes they do."""


@click.command(cls=ClusterCommand)
@click.argument("workload", type=click.Choice((*workloads.NAMES, *STREAMED)), default="put")
@click.option(
    "--callers", type=click.IntRange(min=1), default=100, show_default=True, help="Calls under way at a time."
)
@click.option(
    "--clients", type=click.IntRange(min=1), default=3, show_default=True, help="Connections callers share."
)
@click.option("--total", type=click.IntRange(min=1), default=20_000, show_default=True, help="Operations.")
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    help="Begin so many operations a second, whatever becomes of them.",
)
@click.option("--value-size", type=Size(), default=256, show_default=True, help="Size, such as 4KiB.")
@click.option(
    "--key-space", type=click.IntRange(min=1), default=100_000, show_default=True, help="Number of keys."
)
@click.option(
    "--first", type=click.IntRange(min=0), default=0, show_default=True, help="Number of the first key."
)
@click.option(
    "--watchers", type=click.IntRange(min=1), default=100, show_default=True, help="Watchers of the one key."
)
@click.option("--machine", default="counter", show_default=True, help="Machine that `counter` calls.")
@click.option(
    "--door", type=click.Choice(("session", "unary")), default="session", show_default=True,
    help="Sessions (connect-kv only), or single calls, which etcd answers too.",
)  # fmt: skip
@pass_settings
@click.pass_context
def bench(
    context: click.Context,
    settings: Settings,
    workload: str,
    callers: int,
    clients: int,
    total: int,
    rate: float | None,
    value_size: int,
    key_space: int,
    first: int,
    watchers: int,
    machine: str,
    door: str,
) -> None:
    """Load the cluster with WORKLOAD and say how fast it answered.

    put, range, serializable, mixed, txn, counter: callers that each wait for their answer, or a fixed
    --rate. watch: one writer, many watchers. lease-keep-alive: one lease for each caller. It writes
    under "bench/"; with --door unary the cluster may be etcd's. The exit code is 1 if any operation
    failed, or if the revisions at the end do not fit the writes.
    """
    _refuse_useless(context, workload)
    shape = workloads.KeyShape(value_size=value_size, key_space=key_space, first=first)
    endpoints = settings.endpoints
    access = BenchAccess(tls=settings.files or (Tls() if settings.uses_tls else None), **settings.identity)

    async def measure() -> tuple[load.LoadResult, report.Check | None]:
        if workload == "watch":
            with _progress(watchers * total) as progress:
                watching = streams.watch(
                    endpoints,
                    watchers=watchers,
                    total=total,
                    value_size=value_size,
                    progress=progress,
                    access=access,
                )
                return await watching, None
        if workload == "lease-keep-alive":
            with _progress(total) as progress:
                renewing = streams.lease_keep_alive(
                    endpoints, leases=callers, total=total, progress=progress, access=access
                )
                return await renewing, None
        way = (
            targets.UnaryTarget(endpoints, clients, access)
            if door == "unary"
            else targets.SessionTarget(endpoints, clients, machine, access)
        )
        async with way:
            return await _run(way, workload, shape, callers=callers, total=total, rate=rate)

    if workload == "counter" and door == "unary":
        raise click.UsageError("the counter is called through a session")
    outcome, check = uvloop.run(measure())
    if settings.output == "json":
        output.as_json(report.as_dict(workload, outcome, check))
    else:
        click.echo(report.as_text(workload, outcome, check))
    if outcome.errors or (check is not None and not check.holds):
        context.exit(1)


def _refuse_useless(context: click.Context, workload: str) -> None:
    """Raise UsageError for the first option that was given and that `workload` does not have."""
    for parameter in context.command.params:
        name = parameter.name
        if not isinstance(parameter, click.Option) or name is None or not parameter.expose_value:
            continue
        given = context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT
        if given and name not in OPTIONS[workload]:
            raise click.UsageError(f"{parameter.opts[0]} means nothing to {workload}")


async def _run(
    way: targets.LoadTarget,
    workload: str,
    shape: workloads.KeyShape,
    *,
    callers: int,
    total: int,
    rate: float | None,
) -> tuple[load.LoadResult, report.Check | None]:
    operation = workloads.operation(workload, way, shape)
    before = await way.revision()
    with _progress(total) as progress:
        if rate is None:
            outcome = await load.closed_loop(operation, callers=callers, total=total, progress=progress)
        else:
            outcome = await load.open_loop(operation, rate=rate, total=total, progress=progress)
    acknowledged = workloads.acknowledged(workload, operation, outcome.latencies.count)
    if acknowledged is None:
        return outcome, None
    exact = isinstance(way, targets.SessionTarget) and not outcome.errors
    return outcome, report.Check(acknowledged, await way.revision() - before, exact)


def _progress(total: int) -> AbstractContextManager[Callable[[int], None]]:
    """A bar for people; nothing where nobody looks."""
    return counting("operations", total, quiet=not sys.stderr.isatty())
