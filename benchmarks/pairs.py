"""Loads on two clusters of three nodes, in turns, so that each pair meets the same machine.

Sessions have one client, as most programs do; `ours.addresses` has the leader's address first.
"""

from __future__ import annotations

from benchmarks import loads
from benchmarks.run import BenchmarkRun
from benchmarks.systems import ConnectKv, Etcd

CALLERS = (1, 10, 100, 1000, 10_000)
VALUE_SIZES = (1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20)
WATCHERS = (1, 10, 100, 1000, 10_000)
PAIRS = 128
"""Puts of one transaction: the most etcd takes by default."""


async def puts(run: BenchmarkRun, ours: ConnectKv, theirs: Etcd) -> None:
    """Puts of 256 bytes by so many callers to one key, and to many: throughput and latency."""
    for callers in CALLERS:
        few = 300 * min(callers, 10)
        counts = _counts(callers, run.some(min(few + 30 * callers, 60_000)))
        one_key = loads.bench(ours, "put", *counts, "--key-space", "1")
        await run.attempt(f"session put {callers}", ours, one_key)
        # Short where a call takes long, but many turns of all callers where it does not.
        turns = 40 if callers >= 1000 else 5
        total = run.some(few + 125 + min(turns * callers, 40_000), least=2 * callers)
        for system in (ours, theirs):
            load = loads.unary(system, "Put", loads.put_body(), callers=callers, total=total)
            await run.attempt(f"unary put {callers}", system, load)
    counts = _counts(1000, run.some(60_000))
    many_keys = loads.bench(ours, "put", *counts, "--key-space", "100000")
    await run.attempt("session put 1000, 100,000 keys", ours, many_keys)
    for system in (ours, theirs):
        puts_of_keys = loads.unary_keys(system, callers=1000, total=run.some(40_000), keys=100_000)
        await run.attempt("unary put 1000, 100,000 keys", system, puts_of_keys)


async def sizes(run: BenchmarkRun, ours: ConnectKv, theirs: Etcd) -> None:
    """Puts of larger values by 100 callers."""
    for size in VALUE_SIZES:
        total = run.some(max(150, min(6000, 30_000_000 // size)), least=100)
        size_option = ("--value-size", str(size))
        counts = _counts(100, total)
        await run.attempt(f"session put of {size}", ours, loads.bench(ours, "put", *counts, *size_option))
        for system in (ours, theirs):
            load = loads.unary(system, "Put", loads.put_body(size), callers=100, total=total)
            await run.attempt(f"unary put of {size}", system, load)


async def gets(run: BenchmarkRun, ours: ConnectKv, theirs: Etcd) -> None:
    """Linearizable reads of one key by 1,000 callers, and by one."""
    one_key = ("--key-space", "1")
    await loads.bench(ours, "put", *_counts(1, 10), *one_key)
    for system in (ours, theirs):
        await loads.unary(system, "Put", loads.put_body(), callers=1, total=10)
    counts = (*_counts(1000, run.some(120_000)), *one_key)
    await run.attempt("session get 1000", ours, loads.bench(ours, "range", *counts))
    for callers, total in ((1, 1000), (1000, 40_000)):
        for system in (ours, theirs):
            load = loads.unary(system, "Range", loads.range_body(), callers=callers, total=run.some(total))
            await run.attempt(f"unary get {callers}", system, load)


async def watch(run: BenchmarkRun, ours: ConnectKv, theirs: Etcd) -> None:
    """One writer, so many watchers of its key: events that arrive."""
    for watchers in WATCHERS:
        total = run.some(max(10, min(1000, 100_000 // watchers)), least=10)
        counts = ("--watchers", str(watchers), "--total", str(total), "--value-size", "64")
        for system in (ours, theirs):
            await run.attempt(f"watchers {watchers}", system, loads.bench(system, "watch", *counts))


async def load(run: BenchmarkRun, ours: ConnectKv, theirs: Etcd) -> None:
    """Transactions of 128 puts by 16 callers; the rate is that of transactions."""
    counts = ("--callers", "16", "--total", str(run.some(600, least=40)))
    await run.attempt("load 128", ours, loads.bench(ours, "txn", *counts))
    await run.attempt("load 128", theirs, loads.bench(theirs, "txn", "--door", "unary", *counts))


async def doors(run: BenchmarkRun, ours: ConnectKv, theirs: Etcd) -> None:
    """`connect-kv bench` with the same door for both: our client in front of each."""
    unary = ("--door", "unary")
    for name, callers, total in (("put", 100, 4000), ("mixed", 100, 6000), ("txn", 16, 200)):
        counts = ("--callers", str(callers), "--total", str(run.some(total, least=40)))
        for system in (ours, theirs):
            row = f"{name} {callers}, unary"
            await run.attempt(row, system, loads.bench(system, name, *counts, *unary))
        await run.attempt(f"{name} {callers}, session", ours, loads.bench(ours, name, *counts))
    for leases in (1, 100, 1000):
        counts = ("--callers", str(leases), "--total", str(run.some(300 + 5 * leases)))
        for system in (ours, theirs):
            load = loads.bench(system, "lease-keep-alive", *counts)
            await run.attempt(f"keep-alive of {leases} leases", system, load)


def _counts(callers: int, total: int) -> tuple[str, ...]:
    return "--callers", str(callers), "--clients", "1", "--total", str(total)
