"""Compare two running servers.

``python -m tests.differential --theirs HOST:PORT --ours HOST:PORT --seeds 1-20``
"""

from __future__ import annotations

import argparse
import sys

from tests.differential.session import Difference, Pair
from tests.differential.target import Target


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--theirs", required=True, help="the reference, an etcd")
    parser.add_argument("--ours", required=True)
    parser.add_argument("--seeds", default="1-5", help="FIRST-LAST")
    parser.add_argument("--requests", type=int, default=1000, help="per seed")
    options = parser.parse_args()
    first, _, last = options.seeds.partition("-")
    theirs, ours = Target("theirs", options.theirs), Target("ours", options.ours)
    total = failures = 0
    for seed in range(int(first), int(last or first) + 1):
        pair = Pair(theirs, ours, seed)
        try:
            pair.run(options.requests)
        except Difference as error:
            failures += 1
            print(f"DIFFERENCE {error}\n", flush=True)
        total += pair.requests
        print(f"seed {seed}: {total} requests so far, {failures} seeds with a difference", flush=True)
    print(f"{total} requests, {failures} differences")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
