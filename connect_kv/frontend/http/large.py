"""Answers so large that others must get a turn while they are written."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from connect_kv.frontend.http import heads
from connect_kv.frontend.http.exchange import Exchange
from connect_kv.json_mapping.encoding import pieces

ANSWER = heads.constant(heads.JSON, ("Grpc-Metadata-Content-Type", "application/grpc"))
"""Header fields of what a call answered."""
LARGE: Final = 64 << 10
"""Bytes of an encoded answer that are written in pieces, with time for others in between."""
_PIECE: Final = 64 << 10
_TURN_SECONDS: Final = 0.002


async def in_pieces(exchange: Exchange, message: Any) -> None:
    """A large answer: sent while it is written, and the loop goes on in between."""
    exchange.begin(200, ANSWER)
    now = asyncio.get_running_loop().time
    ready: list[str] = []
    size, until = 0, now() + _TURN_SECONDS
    for piece in pieces(message):
        ready.append(piece)
        size += len(piece)
        if size >= _PIECE:
            await exchange.send("".join(ready).encode())
            ready, size = [], 0
        if now() >= until:
            await asyncio.sleep(0)
            until = now() + _TURN_SECONDS
    await exchange.send("".join(ready).encode())
    exchange.finish()
