"""Running the parts of one stream side by side, and ending what runs in the background."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine


async def first_to_end(*parts: Coroutine[object, object, None]) -> None:
    """Run all until one returns or raises, which ends the others; raises what it raised."""
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def ended(task: asyncio.Task[None]) -> None:
    """Cancel it and wait for its end; raises what it raised. Its cancellation is not the caller's, which is
    still heard.
    """
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.result()
