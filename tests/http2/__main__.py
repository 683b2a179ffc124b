"""Random connections without end: python -m tests.http2 --seconds 60 --from 0."""

from __future__ import annotations

import argparse
import sys
import time

from tests.http2 import oracle


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--seconds", type=float, help="stop after these; without it nothing but a difference stops it"
    )
    parser.add_argument("--connections", type=int, help="stop after so many of each kind")
    parser.add_argument(
        "--from", dest="first", type=int, default=time.time_ns() // 1000, help="the first seed"
    )
    arguments = parser.parse_args()
    started, told = time.monotonic(), time.monotonic()
    seed = arguments.first
    print(f"from seed {seed}", flush=True)
    while arguments.connections is None or seed - arguments.first < arguments.connections:
        try:
            oracle.check(seed)
            oracle.survive(seed)
        except Exception as error:
            print(f"SEED={seed}\n{type(error).__name__}: {error}", file=sys.stderr)
            return 1
        seed += 1
        now = time.monotonic()
        if now - told > 10:
            told = now
            print(f"{seed - arguments.first} connections compared and as many damaged", flush=True)
        if arguments.seconds is not None and now - started > arguments.seconds:
            break
    print(f"{seed - arguments.first} connections compared and as many damaged: no difference")
    return 0


sys.exit(main())
