"""Transactions that read, or delete, very much while others read a little: how long do these wait?"""

from __future__ import annotations

import asyncio
import sys

from connect_kv.rpc import kv_pb2 as kv
from tests.figures.sides import Figures, Side, caller, channel, timed

VALUE = bytes(256)
OPERATIONS = 128
TIMES = 3


async def large_transactions(side: Side, keys: int) -> Figures:
    """Some put a key and read all others, the last deletes these; another process gets one key meanwhile."""
    async with channel(side) as connection:
        txn = caller(connection, "KV/Txn")
        for first in range(0, keys, OPERATIONS):
            request = kv.TxnRequest()
            for number in range(first, min(first + OPERATIONS, keys)):
                request.success.add().request_put.MergeFrom(
                    kv.PutRequest(key=b"large/%06d" % number, value=VALUE)
                )
            await txn(request, timeout=60)
        request = kv.TxnRequest()
        request.success.add().request_put.key = b"largest"
        everything = request.success.add().request_range
        everything.key, everything.range_end = b"large/", b"large0"
        took = []
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.figures.prober", side.address, "large/000000",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        await process.stdout.readline()
        for _ in range(TIMES):
            took.append(await timed(lambda: txn(request, timeout=600)))
        delete = kv.TxnRequest()
        all_of_them = delete.success.add().request_delete_range
        all_of_them.key, all_of_them.range_end = everything.key, everything.range_end
        deleting = await timed(lambda: txn(delete, timeout=600))
        process.stdin.write(b"\n")
        longest = int(await process.stdout.readline())
        await process.wait()
    return {
        f"a transaction that puts one key and reads {keys:,}, ms": f"{min(took) * 1000:.0f}",
        "one that deletes these, ms": f"{deleting * 1000:.0f}",
        "longest serializable get of another process meanwhile, ms": f"{longest}",
    }
