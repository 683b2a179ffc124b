"""Running the parts of one stream side by side."""

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
