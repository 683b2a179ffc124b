"""A counter on PySyncObj, journal on; the process named leader counts and says how fast.

Arguments: own number, ports of all, journal directory, callers, total (0: only serve).
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

from pysyncobj import SyncObj, SyncObjConf, replicated


class PySyncObjCounter(SyncObj):  # type: ignore[misc]  # pysyncobj has no types
    """The same counter as ours."""

    def __init__(self, own: str, others: list[str], journal: str) -> None:
        super().__init__(own, others, SyncObjConf(journalFile=journal, commandsQueueSize=1_000_000))
        self.total = 0

    @replicated  # type: ignore[untyped-decorator]
    def increment(self, by: int = 1) -> int:
        """Count."""
        self.total += by
        return self.total


def load(counter: PySyncObjCounter, callers: int, total: int) -> dict[str, float]:
    """`callers` calls under way at a time."""
    latencies: list[float] = []
    ended = threading.Event()
    left = total

    def call() -> None:
        nonlocal left
        if left <= 0:
            return
        left -= 1
        since = time.perf_counter()

        def done(value: Any, error: Any) -> None:
            latencies.append(time.perf_counter() - since)
            if len(latencies) >= total:
                ended.set()
            else:
                call()

        counter.increment(by=1, callback=done)

    started = time.perf_counter()
    for _ in range(callers):
        call()
    ended.wait(60)
    seconds = time.perf_counter() - started
    latencies.sort()
    return {
        "rate": len(latencies) / seconds,
        "median": latencies[len(latencies) // 2] * 1e3,
        "p99": latencies[int(len(latencies) * 0.99)] * 1e3,
    }


def main() -> None:
    """Serve, and if this is the leader when all are there, measure each load that is asked for on stdin."""
    number, ports, directory = int(sys.argv[1]), sys.argv[2].split(","), Path(sys.argv[3])
    addresses = [f"127.0.0.1:{port}" for port in ports]
    own = addresses.pop(number)
    counter = PySyncObjCounter(own, addresses, str(directory / f"journal{number}"))
    while not counter.isReady():
        time.sleep(0.05)
    leader = str(counter._getLeader())
    print(json.dumps({"leads": leader == own}), flush=True)
    for line in sys.stdin:
        callers, total = map(int, line.split())
        print(json.dumps(load(counter, callers, total)), flush=True)


if __name__ == "__main__":
    main()
