"""The three nodes of a chaos run, with a disk and a place in the network each."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import connect_kv
from chaos import faulty_machine
from connect_kv.client.client import Client
from connect_kv.testing.network import Links, Network, NodeLocation
from connect_kv.testing.processes import DidNotStart, NodeProcess, leads, until

NAMES = ("n1", "n2", "n3")
PROGRAM = "chaos.faulty_machine"
DISK_BYTES = 320 << 20
SNAPSHOT_COUNT = 400
CATCH_UP_ENTRIES = 100
"""Low, so that a node that was away for seconds needs a snapshot."""
RECOVERY_SECONDS = 90.0


class ChaosNode(NodeProcess):
    """One node. What was done to it on purpose is noted, so that a death nobody planned shows."""

    def __init__(self, name: str, directory: Path, place: NodeLocation, arguments: list[str]) -> None:
        super().__init__(
            name,
            directory,
            place.ports,
            [*arguments, "--advertise-peer", place.peer_address],
            host=place.host,
        )
        self.wrapper = list(place.wrapper)
        self.program = PROGRAM
        self._control = directory / f"{name}.disk"
        self._clock = directory / f"{name}.clock"
        self._ahead = 0.0
        self.environment = {
            faulty_machine.DISK: str(self._control),
            faulty_machine.CLOCK: str(self._clock),
        }
        self.small_disk: Path | None = None
        self.may_die = False
        """Its process may end by itself: its disk is sick or full."""
        self.killed = False
        self.paused = False

    def use_small_disk(self, mount: Path) -> bool:
        """Keep its data on a small file system of its own; False where that is not allowed."""
        mount.mkdir(parents=True, exist_ok=True)
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(mount)], capture_output=True
        )
        if mounted.returncode:
            return False
        self.small_disk = mount
        self.data_dir = mount / "data"
        return True

    def release_disk(self) -> None:
        """Unmount the node's small disk."""
        if self.small_disk is not None:
            subprocess.run(["umount", "-l", str(self.small_disk)], capture_output=True)

    def plant(self, fault: str) -> None:
        """What its disk does from now on; see `faulty_machine`."""
        self._control.write_text(fault)

    def step_clock(self, seconds: float) -> None:
        """Its wall clock is set so far ahead, or back, of what it showed."""
        self._ahead += seconds
        # Renamed into its place: it is read at every moment.
        new = self._clock.with_suffix(".new")
        new.write_text(f"{self._ahead!r}")
        new.rename(self._clock)

    def fill_disk(self) -> None:
        """Take all the space that is left."""
        assert self.small_disk is not None
        with suppress(OSError), (self.small_disk / "filler").open("wb", buffering=0) as filler:
            while filler.write(b"\0" * (1 << 20)):
                pass

    def heal_disk(self) -> None:
        """As new; its process may have to be started again."""
        self._control.unlink(missing_ok=True)
        if self.small_disk is not None:
            (self.small_disk / "filler").unlink(missing_ok=True)

    async def kill(self) -> None:
        """SIGKILL, on purpose."""
        self.killed = True
        await super().kill()

    def pause(self) -> None:
        """SIGSTOP."""
        self.signal(signal.SIGSTOP)
        self.paused = True

    def resume(self) -> None:
        """SIGCONT."""
        if self.paused and self.running:
            self.signal(signal.SIGCONT)
        self.paused = False

    def receives_snapshot(self) -> bool:
        """Whether a second state database is being filled."""
        with suppress(OSError):
            return len(os.listdir(self.data_dir / "state")) > 1
        return False

    @property
    def died(self) -> bool:
        """Its process ended, and nobody killed it."""
        return self.returncode is not None and not self.running and not self.killed


class ChaosCluster:
    """All nodes of a cluster under faults."""

    def __init__(
        self, directory: Path, network: Network, places: dict[str, NodeLocation], program: str
    ) -> None:
        initial = ",".join(f"{name}={place.peer_address}" for name, place in places.items())
        arguments = [
            "--initial-cluster", initial,
            "--machine", "lists=chaos.machines:Lists",
            "--snapshot-count", str(SNAPSHOT_COUNT), "--catch-up-entries", str(CATCH_UP_ENTRIES),
        ]  # fmt: skip
        self.nodes = [ChaosNode(name, directory, place, arguments) for name, place in places.items()]
        for node in self.nodes:
            node.program = program
        self.network = network
        self.links = Links(network, [node.name for node in self.nodes])
        self.small_disks = all(node.use_small_disk(directory / f"disk-{node.name}") for node in self.nodes)
        self.troubles: list[str] = []
        """What must not happen: a node that died by itself, or did not come back."""

    @property
    def endpoints(self) -> str:
        """The addresses of all nodes, as a client takes them."""
        return ",".join(node.client_address for node in self.nodes)

    def client(self, *, session: bool = True, timeout: float = 5.0) -> Client:
        """A client that knows all nodes."""
        return connect_kv.connect(self.endpoints, session=session, timeout=timeout)

    async def start(self, *nodes: ChaosNode) -> None:
        """Start those, or all; does not wait until they serve."""
        for node in nodes or self.nodes:
            node.killed = node.paused = False
            await node.start()
            self.network.started(node.name, node.pid)

    async def ready(self) -> None:
        """Wait until all serve. Raises DidNotStart."""
        await asyncio.gather(*(node.ready(RECOVERY_SECONDS) for node in self.nodes))

    async def leader(self) -> ChaosNode:
        """The node that leads; waits for one."""

        async def find() -> ChaosNode | None:
            answers = await asyncio.gather(*(self._leads(node) for node in self.nodes))
            return next((node for node, yes in zip(self.nodes, answers, strict=True) if yes), None)

        return await until(find, 30, "a leader")

    async def _leads(self, node: ChaosNode) -> bool:
        return node.running and not node.paused and await leads(node)

    def others(self, node: ChaosNode) -> Iterator[ChaosNode]:
        """All nodes but the given one."""
        return (other for other in self.nodes if other is not node)

    async def recover(self) -> None:
        """End every fault, start what does not run, and wait until all serve again."""
        self.links.heal()
        for node in self.nodes:
            node.resume()
            node.heal_disk()
            if node.died and not node.may_die:
                self.troubles.append(f"{node.name} ended by itself ({node.returncode}): {node.log_tail(4)}")
            if not node.running:
                await self.start(node)
        try:
            await self._until_all_ready()
        except (DidNotStart, TimeoutError) as error:
            self.troubles.append(f"not well {RECOVERY_SECONDS:g} s after the fault had ended: {error}")
            return
        for node in self.nodes:
            node.may_die = False

    async def _until_all_ready(self) -> None:
        """A node whose disk was sick may find out now, and end: it is started once more."""
        try:
            await self.ready()
        except DidNotStart:
            dead = [node for node in self.nodes if not node.running]
            if not dead or not all(node.may_die for node in dead):
                raise
            await self.start(*dead)
            await self.ready()

    async def end_alarms(self) -> None:
        """As an operator does once there is space again."""
        async with self.client(session=False, timeout=20) as client:
            for alarm in await client.maintenance.alarms():
                await client.maintenance.disarm(alarm.memberID, alarm.alarm)

    async def stop(self) -> None:
        """Kill what runs and give back what was taken."""
        await asyncio.gather(*(node.kill() for node in self.nodes if node.running))
        for node in self.nodes:
            node.release_disk()
        await self.network.close()
