"""The JSON gateway beside etcd's: ``python -m benchmarks.gateway``. Needs h2load and an etcd (extra dev).

Puts of 256 bytes and linearizable ranges of one key, 100 connections that are kept, one request at a time on
each; the two sides take turns. On a busy machine only the ratios mean something.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import re
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from chaos.patroni.stores import Etcd, run
from connect_kv.testing.processes import ProcessCluster

CONNECTIONS = 100
KEY = base64.b64encode(b"benchmark").decode()
BODIES = {
    "put": json.dumps({"key": KEY, "value": base64.b64encode(bytes(256)).decode()}),
    "range": json.dumps({"key": KEY}),
}


async def rate(port: int, call: str, seconds: int, folder: Path) -> float:
    """Answers with 200 a second."""
    body = folder / f"{call}.json"
    body.write_text(BODIES[call])
    told = await run(
        "h2load", "--h1", "-c", str(CONNECTIONS), "-t", "1", "-D", str(seconds), "-d", str(body),
        "-H", "content-type: application/json", f"http://127.0.0.1:{port}/v3/kv/{call}",
    )  # fmt: skip
    good = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", told)
    assert good is not None, told
    assert not any(int(good[number]) for number in (2, 3, 4)), told
    return int(good[1]) / seconds


async def measure(rounds: int, seconds: int, folder: Path) -> dict[str, list[tuple[float, float]]]:
    """By call: (connect-kv, etcd) for each round."""
    etcd = Etcd(folder)
    found: dict[str, list[tuple[float, float]]] = {call: [] for call in BODIES}
    async with ProcessCluster(folder / "connect-kv") as cluster:
        try:
            await etcd.start()
            ours = (await cluster.leader()).client_port
            theirs = etcd.ports[await etcd.leader()]
            for _ in range(rounds):
                for call, rates in found.items():
                    rates.append(
                        (await rate(ours, call, seconds, folder), await rate(theirs, call, seconds, folder))
                    )
        finally:
            await etcd.stop()
    return found


def main() -> int:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="gateway-"))
    try:
        found = asyncio.run(measure(options.rounds, options.seconds, folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(
        "| three members, the leader asked | connect-kv | etcd 3.5.1 | ratio, each round |\n|---|---|---|---|"
    )
    for call, rates in found.items():
        ours, theirs = (statistics.median(side) for side in zip(*rates, strict=True))
        ratios = ", ".join(f"{one / other:.2f}" for one, other in rates)
        print(f"| {call}s a second | {ours:,.0f} | {theirs:,.0f} | {ratios} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
