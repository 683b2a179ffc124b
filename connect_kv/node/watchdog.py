"""Notices when something holds the event loop: heartbeats wait for it too."""

from __future__ import annotations

from connect_kv.interfaces import Clock
from connect_kv.node.metrics import NodeMetrics


async def watch_loop(clock: Clock, metrics: NodeMetrics, *, every: float, limit: float) -> None:
    """Sleep, and report each wake-up that comes more than `limit` seconds late, for ever."""
    while True:
        due = clock.now() + every
        await clock.sleep(every)
        late = clock.now() - due
        if late > limit:
            metrics.loop_stalled(late)
