"""The pieces of a snapshot on their way out."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager


@asynccontextmanager
async def closed_after(pieces: AsyncIterator[bytes]) -> AsyncIterator[None]:
    """End a generator of pieces now, however it was left, and not when it is collected.

    Its owner closes the database view under it as soon as the sending is over.
    """
    try:
        yield
    finally:
        if isinstance(pieces, AsyncGenerator):
            await pieces.aclose()
