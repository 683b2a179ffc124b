"""``scripts/patroni-demo``: Patroni on connect-kv, beside an etcd if wanted, hurt in five ways."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from chaos.patroni.cases import CASES, STAYS, Outcome, Stack, log_files, play
from chaos.patroni.gates import Gate
from chaos.patroni.nodes import LOOP_WAIT, TTL, Node, all_well, leader_of, postgres_programs, program
from chaos.patroni.stores import ConnectKv, Etcd, Store, run

KINDS: dict[str, Callable[[Path], Store]] = {
    "connect-kv": lambda directory: ConnectKv(directory, secure=False),
    "connect-kv-secure": lambda directory: ConnectKv(directory, secure=True),
    "etcd": Etcd,
}


async def stack_on(store: Store, directory: Path, *, gated: bool) -> Stack:
    """Three nodes, the first of which makes the database."""
    await store.start()
    gates: dict[str, list[Gate]] = {}
    nodes = []
    for name in ("pg1", "pg2", "pg3"):
        ports = store.ports
        if gated:
            gates[name] = [Gate(port) for port in store.ports]
            for gate in gates[name]:
                await gate.start()
            ports = [gate.port for gate in gates[name]]
        hosts = [f"127.0.0.1:{port}" for port in ports]
        nodes.append(Node(name, directory, hosts, store.settings, proxies=gated))
    stack = Stack(store, nodes, gates)
    await nodes[0].start()
    await leader_of(nodes, 90)
    for node in nodes[1:]:
        await node.start()
    await all_well(nodes)
    return stack


async def end(stack: Stack) -> None:
    """End everything that was started."""
    await asyncio.gather(*(node.stop() for node in stack.nodes))
    for gates in stack.gates.values():
        for gate in gates:
            await gate.stop()


async def rounds_on(kind: str, cases: list[str], rounds: int, keep: bool) -> dict[str, list[Outcome]]:
    """Cases that need gates get a stack of their own: with them Patroni must not look for members itself."""
    found: dict[str, list[Outcome]] = {name: [] for name in cases}
    for gated in (False, True):
        chosen = [name for name in cases if (name == "partition") is gated]
        if not chosen:
            continue
        directory = _folder()
        store = KINDS[kind](directory)
        stack = None
        try:
            stack = await stack_on(store, directory, gated=gated)
            for _ in range(rounds):
                for name in chosen:
                    outcome = await play(name, stack)
                    found[name].append(outcome)
                    print(f"{kind:18} {name:14} {_told(name, outcome)}", flush=True)
        except BaseException:
            keep = True
            print(f"logs: {log_files(directory)}", file=sys.stderr)
            raise
        finally:
            if stack is not None:
                await end(stack)
            await store.stop()
            if not keep:
                shutil.rmtree(directory, ignore_errors=True)
    return found


def _folder() -> Path:
    """That the user postgres can look into."""
    made = Path(tempfile.mkdtemp(prefix="patroni-demo-"))
    made.chmod(0o755)
    return made


def _told(name: str, one: Outcome) -> str:
    what = "longest pause" if name in STAYS else "writes again after"
    return (
        f"{what} {one.seconds:5.1f} s, {one.written} transactions, {one.lost} lost, "
        f"{one.at_once} moments with two primaries{', the primary changed' if one.moved else ''}"
    )


def table(found: dict[str, dict[str, list[Outcome]]]) -> str:
    """Medians, for docs/patroni.md."""
    kinds = list(found)
    lines = ["| fault | " + " | ".join(kinds) + " |", "|---|" + "---|" * len(kinds)]
    for name in CASES:
        cells = []
        for kind in kinds:
            seconds = [one.seconds for one in found[kind].get(name, [])]
            cells.append(
                f"{statistics.median(seconds):.1f} s ({min(seconds):.1f} to {max(seconds):.1f})"
                if seconds
                else ""
            )
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    """Exits with 1 if something was seen that must not be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--on", default="connect-kv", help=f"with commas between: {', '.join(KINDS)}")
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--keep", action="store_true", help="leave logs and data where they are")
    options = parser.parse_args()
    cases = options.cases.split(",")
    if unknown := sorted(set(cases) - set(CASES)):
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(CASES)}")

    async def run_all() -> dict[str, dict[str, list[Outcome]]]:
        version = (await run(program("patroni"), "--version")).strip()
        postgres = (await run(str(postgres_programs() / "postgres"), "--version")).strip()
        print(f"{version}; {postgres}; ttl {TTL} s, loop_wait {LOOP_WAIT} s", flush=True)
        return {
            kind: await rounds_on(kind, cases, options.rounds, options.keep) for kind in options.on.split(",")
        }

    found = asyncio.run(run_all())
    print(table(found))
    outcomes = [(name, one) for cases in found.values() for name, many in cases.items() for one in many]
    bad = [one for name, one in outcomes if one.at_once or one.lost or one.moved is (name in STAYS)]
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
