"""One run with everything told that happens in it: ``python -m tests.simulation.trace SEED SECONDS``.

A line for each step of each task and callback, each message between members with all that is in it,
each answer of a client, each fault.
"""

from __future__ import annotations

import asyncio
import sys
from unittest.mock import patch

from connect_kv.peer_protocol import PeerMessage
from connect_kv.testing.simulation import world
from connect_kv.testing.simulation.clock import Handle
from connect_kv.testing.simulation.process import SimLoop, SimTask
from connect_kv.testing.simulation.simulation import RunConfig, Simulation


class TracedLoop(SimLoop):
    """Tells what it runs."""

    def run_turn(self, handles: list[Handle]) -> None:
        for handle in handles:
            if handle:
                print(f"{self.now!r} {_name(handle)}")
        super().run_turn(handles)


class TracedWorld(world.World):
    """Tells what members say to each other."""

    def sees(self, message: PeerMessage) -> None:
        super().sees(message)
        print(f"{self.now!r} {message!r}")


def _name(handle: Handle) -> str:
    owner = getattr(handle[0], "__self__", None)
    if isinstance(owner, SimTask):
        return f"task {owner.number} {getattr(owner.get_coro(), '__qualname__', None)}"
    if isinstance(owner, asyncio.Future):
        return "future"
    return getattr(handle[0], "__qualname__", type(handle[0]).__qualname__)


def main(seed: int, seconds: float) -> None:
    """Run it."""
    with (
        patch.object(world, "SimLoop", TracedLoop),
        patch("connect_kv.testing.simulation.simulation.World", TracedWorld),
    ):
        simulation = Simulation(RunConfig(seed=seed, seconds=seconds))
        report = simulation.run()
    for recorder in simulation.recorders.values():
        for operation in recorder.history.operations:
            print(operation)
    for watcher in simulation.watchers:
        print(watcher.name, watcher.segments)
    for moment, text in report.story:
        print(repr(moment), text)
    print(simulation.world.reference.keys)
    print(report.digest, report.steps, report.commits, report.violation)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
