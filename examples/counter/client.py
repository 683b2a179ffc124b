"""Counts, whichever members are alive: python client.py [BY]."""

import asyncio
import sys

from machine import Counter

import connect_kv

ENDPOINTS = "127.0.0.1:2379,127.0.0.1:22379,127.0.0.1:32379"


async def main(by: int) -> None:
    async with connect_kv.connect(ENDPOINTS) as client:
        counter = client.machine("counter", Counter)
        total = await counter.call(Counter.increment, by=by)  # typed: an int
        print("the counter says", total)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1))
