"""What goes wrong, all from the seed: networks, processes, disks, members."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextvars import Context
from pathlib import Path
from typing import Any

from connect_kv.errors import ConnectKvError, StorageError
from connect_kv.raft.membership import MembershipChange
from connect_kv.raft.types import Member, Membership
from connect_kv.storage.codec import LOG_ENTRY
from connect_kv.testing.simulation.host import SimulatedHost
from connect_kv.testing.simulation.process import across
from connect_kv.testing.simulation.world import World

CALL_SECONDS = 3.0
MOST_MEMBERS = 5
LEAST_VOTERS = 3
CLOCK_STEPS = (2, 60, 3600, 24 * 3600, 30 * 24 * 3600)
"""Seconds, more or less."""


class Nemesis:
    """Brings one fault after another upon a world until it is told to stop."""

    def __init__(self, world: World, kinds: Iterable[str], *, mean: float) -> None:
        """`mean`: seconds between two faults, on average. Raises ValueError for an unknown kind."""
        self._world = world
        self._rng = world.chance("faults")
        self._mean = mean
        self._all: dict[str, Callable[[], Awaitable[None]]] = {
            "partition": self._partition,
            "one-way": self._one_way,
            "bridge": self._bridge,
            "lossy": self._lossy,
            "slow-network": self._slow_network,
            "clients": self._clients,
            "pause": self._pause,
            "kill": self._kill,
            "power": self._power,
            "power-all": self._power_all,
            "crash-in-write": self._crash_in_write,
            "failed-write": self._failed_write,
            "disk-full": self._disk_full,
            "slow-disk": self._slow_disk,
            "bit-rot": self._bit_rot,
            "restart": self._restart,
            "wall-clock": self._wall_clock,
            "transfer": self._transfer,
            "members": self._members,
        }
        self.kinds = list(kinds)
        if unknown := sorted(set(self.kinds) - self._all.keys()):
            raise ValueError(f"unknown faults: {', '.join(unknown)}; there are: {', '.join(self._all)}")
        self.count: dict[str, int] = dict.fromkeys(self.kinds, 0)
        self.log: list[tuple[float, str]] = []
        """When each began, in words."""
        self._spare: SimulatedHost | None = None

    async def run(self) -> None:
        """For ever. Faults may overlap."""
        while self.kinds:
            await asyncio.sleep(self._rng.expovariate(1 / self._mean))
            kind = self._rng.choice(self.kinds)
            self.count[kind] += 1
            await self._all[kind]()

    async def end(self) -> None:
        """Repair everything, and have every member run that belongs to the cluster."""
        self._heal()
        for host in self._world.hosts:
            host.resume()
            host.slow_disk = 0.0
            host.disk.before_write = host.disk.before_read = host.disk.after_read = None
            host.disk.full = False
            if not host.removed:
                host.run()

    async def dismiss(self) -> None:
        """Stop the members that belong to the cluster no more, or never did."""
        belongs = self._belonging()
        for host in self._world.hosts:
            if host.removed or host.name not in belongs:
                host.wanted = False
                await host.kill()

    def _belonging(self) -> set[str]:
        """Names in the membership that was applied last."""
        nodes = [host.running.node for host in self._world.hosts if host.up]
        latest = max(nodes, key=lambda node: node.last_applied, default=None)
        return {member.name for member in latest.membership.members} if latest else set()

    def _say(self, text: str) -> None:
        self.log.append((self._world.now, text))

    # Networks.

    def _heal(self) -> None:
        world = self._world
        world.peers.heal()
        faults = world.peers.faults
        faults.drop = faults.duplicate = faults.reorder = 0.0
        faults.delay = (0.0002, 0.002)
        world.clients.cut.clear()
        world.clients.break_rate = 0.0
        world.clients.delay = (0.0001, 0.001)

    def _later(self, seconds: tuple[float, float], undo: Callable[[], object]) -> None:
        self._world.loop.call_later(self._rng.uniform(*seconds), undo)

    def _addresses(self) -> list[str]:
        return [host.peer_address for host in self._world.hosts]

    def _some_host(self) -> SimulatedHost:
        """The leader more often than any other."""
        leader = self._world.leader
        if leader is not None and self._rng.random() < 0.5:
            return leader
        return self._rng.choice(self._world.hosts)

    async def _partition(self) -> None:
        addresses = self._addresses()
        if len(addresses) < 2:
            return
        self._rng.shuffle(addresses)
        if self._rng.random() < 0.6:
            alone = self._some_host().peer_address
            groups = [[alone], [address for address in addresses if address != alone]]
        else:
            cut = self._rng.randrange(1, len(addresses))
            groups = [addresses[:cut], addresses[cut:]]
        self._say(f"partition {groups}")
        self._world.peers.partition(*groups)
        self._later((0.2, 4), self._world.peers.heal)

    async def _one_way(self) -> None:
        host = self._some_host()
        outwards = self._rng.random() < 0.5
        self._say(f"{host.name} is cut off {'outwards' if outwards else 'inwards'}")
        for address in self._addresses():
            if address != host.peer_address:
                pair = (host.peer_address, address) if outwards else (address, host.peer_address)
                self._world.peers.cut(*pair)
        self._later((0.2, 3), self._world.peers.heal)

    async def _bridge(self) -> None:
        """Two that do not reach each other, and others that reach both."""
        addresses = self._addresses()
        if len(addresses) < 2:
            return
        first, second = self._rng.sample(addresses, 2)
        self._say(f"{first} and {second} do not reach each other")
        self._world.peers.partition([first], [second])
        self._later((0.2, 4), self._world.peers.heal)

    async def _lossy(self) -> None:
        faults, rng = self._world.peers.faults, self._rng
        faults.drop, faults.duplicate, faults.reorder = (rng.choice((0.0, 0.02, 0.2)) for _ in range(3))
        self._say(f"drop {faults.drop} duplicate {faults.duplicate} reorder {faults.reorder}")

        def undo() -> None:
            faults.drop = faults.duplicate = faults.reorder = 0.0

        self._later((0.5, 4), undo)

    async def _slow_network(self) -> None:
        faults = self._world.peers.faults
        faults.delay = (0.0002, self._rng.choice((0.01, 0.05, 0.2)))
        self._say(f"messages take {faults.delay}")

        def undo() -> None:
            faults.delay = (0.0002, 0.002)

        self._later((0.5, 3), undo)

    async def _clients(self) -> None:
        """Connections of clients break, or pass nothing any more."""
        clients, rng = self._world.clients, self._rng
        if rng.random() < 0.5:
            clients.break_rate = rng.choice((0.01, 0.1))
            self._say(f"connections of clients break: {clients.break_rate}")
        else:
            host = self._some_host()
            self._say(f"no client reaches {host.name}")
            clients.cut.update((name, host.client_address) for name in sorted(clients.names))

        def undo() -> None:
            clients.break_rate = 0.0
            clients.cut.clear()

        self._later((0.2, 3), undo)

    # Processes.

    async def _pause(self) -> None:
        host = self._some_host()
        self._say(f"{host.name} pauses")
        host.pause()
        process = host.process
        self._later((0.05, 3), lambda: process.resume() if process is not None else None)

    async def _kill(self) -> None:
        host = self._some_host()
        self._say(f"{host.name} is killed")
        await host.kill()

    async def _power(self) -> None:
        host = self._some_host()
        self._say(f"{host.name} loses power")
        await host.kill(power=True)

    async def _power_all(self) -> None:
        self._say("all lose power")
        for host in self._world.hosts:
            host.cut_off(power=True)

    async def _restart(self) -> None:
        host = self._some_host()
        if host.up and host.wanted and not host.paused:
            self._say(f"{host.name} is restarted in order")
            await host.stop()
            host.run()

    # Disks.

    def _at_write(self, host: SimulatedHost, act: Callable[[Path], None]) -> None:
        """Do something at one of its next writes or syncs, whichever database it is of.

        Also while its member starts, when databases are made, checked, and deleted.
        """
        left = self._rng.choice((0, 1, 3, 10))
        disk = host.disk

        def hook(path: Path) -> None:
            nonlocal left
            if left:
                left -= 1
                return
            disk.before_write = None
            act(path)

        disk.before_write = hook

    async def _crash_in_write(self) -> None:
        host = self._some_host()
        power, torn = self._rng.random() < 0.7, self._rng.random() < 0.5
        loop = self._world.loop

        def act(path: Path) -> None:
            self._say(f"{host.name} crashes in a write to {path} (power {power}, torn {torn})")
            if torn and host.disk.is_open(path):
                host.excused = True
                host.disk.fail_next_write(path, "the power failed")
                loop.call_soon(lambda: host.cut_off(power=power), context=Context())
            else:
                host.cut_off(power=power)
                raise StorageError(str(path), "the process is dead")

        self._at_write(host, act)

    async def _failed_write(self) -> None:
        host = self._some_host()
        reason = self._rng.choice(("Input/output error", "No space left on device"))

        def act(path: Path) -> None:
            self._say(f"{host.name}: {path}: {reason}")
            host.excused = True
            if not host.disk.is_open(path):
                raise StorageError(str(path), reason)
            host.disk.fail_next_write(path, reason)

        self._at_write(host, act)

    async def _disk_full(self) -> None:
        """No room for a while: the member ends, and cannot start before there is some."""
        host = self._some_host()
        self._say(f"the disk of {host.name} is full")
        host.disk.full = True

        def undo() -> None:
            host.disk.full = False

        self._later((0.1, 3), undo)

    async def _slow_disk(self) -> None:
        host = self._some_host()
        host.slow_disk = self._rng.choice((0.02, 0.1, 1.0))
        self._say(f"the disk of {host.name} takes up to {host.slow_disk} s")

        def undo() -> None:
            host.slow_disk = 0.0

        self._later((0.5, 3), undo)

    async def _bit_rot(self) -> None:
        """What is read once is not what was written: the checksum of the block tells, or of the entry."""
        host = self._some_host()
        if not host.up:
            return
        left = self._rng.choice((0, 1, 5, 30))
        disk = host.disk
        if self._rng.random() < 0.5:
            disk.after_read = self._flip_in_entry(host, left)
            return

        def hook(path: Path) -> None:
            nonlocal left
            if left:
                left -= 1
                return
            disk.before_read = None
            self._say(f"{host.name}: a damaged block in {path}")
            host.excused = True
            raise disk.damaged(path)

        disk.before_read = hook

    def _flip_in_entry(self, host: SimulatedHost, left: int) -> Callable[[Path, bytes, bytes], bytes]:
        """One bit of one entry of the log, which the block's checksum did not notice."""

        def read(path: Path, key: bytes, value: bytes) -> bytes:
            nonlocal left
            if path.name != "log" or key[0] != LOG_ENTRY:
                return value
            if left:
                left -= 1
                return value
            host.disk.after_read = None
            host.excused = True
            flipped = bytearray(value)
            flipped[self._rng.randrange(len(value))] ^= 1 << self._rng.randrange(8)
            self._say(f"{host.name}: a flipped bit in the log")
            return bytes(flipped)

        return read

    # Clocks.

    async def _wall_clock(self) -> None:
        """Somebody sets it, or it is set right: by seconds to weeks, forward or back."""
        host, rng = self._some_host(), self._rng
        step = rng.choice((-1, 1)) * rng.choice(CLOCK_STEPS) * rng.uniform(0.5, 1.5)
        self._say(f"the wall clock of {host.name} steps by {step:.1f} s")
        host.clock.offset += step
        if rng.random() < 0.5:

            def undo() -> None:
                host.clock.offset -= step

            self._later((0.2, 5), undo)

    # Members.

    async def _transfer(self) -> None:
        leader = self._world.leader
        if leader is None:
            return
        node = leader.running.node
        others = sorted(node.membership.voters - {node.identity.node_id})
        if others:
            target = self._rng.choice(others)
            self._say(f"{leader.name} hands over to {target:x}")
            await self._ask(leader, node.transfer_leadership(target))

    async def _members(self) -> None:
        leader = self._world.leader
        if leader is None:
            # Whoever waits for the second of two members has none: it may have been added unheard.
            if self._spare is not None and self._spare.name in self._belonging():
                self._spare.run()
                self._spare = None
            return
        node = leader.running.node
        membership, rng = node.membership, self._rng
        learners, voters = sorted(membership.learners), sorted(membership.voters)
        if learners and rng.random() < 0.6:
            await self._change(leader, f"promotes {learners[0]:x}", MembershipChange().promote(learners[0]))
        elif len(voters) > LEAST_VOTERS and (removable := self._removable(membership)) and rng.random() < 0.6:
            gone = rng.choice(removable)
            await self._change(leader, f"removes {gone:x}", MembershipChange().remove(gone))
        elif len(membership.members) < MOST_MEMBERS and len(self._world.hosts) < 9:
            host = self._spare or self._world.add_host()
            member = Member(node_id=0, name=host.name, peer_address=host.peer_address)
            change = MembershipChange()
            if rng.random() < 0.5:
                change = change.add_learner(member)
            else:
                change = change.add_voter(member)
                removable = self._removable(membership)
                if len(voters) >= LEAST_VOTERS and removable and rng.random() < 0.5:
                    change = change.remove(rng.choice(removable))
            self._spare = host
            if await self._change(leader, f"adds {host.name}: {change}", change):
                self._spare = None
                host.run()

    def _removable(self, membership: Membership) -> list[int]:
        """Voters that may go: one of those that the clients know stays."""
        first = [host.name for host in self._world.hosts[: self._world.config.members]]
        known = [member.node_id for member in membership.members if member.name in first]
        return [voter for voter in sorted(membership.voters) if known != [voter]]

    async def _change(self, leader: SimulatedHost, what: str, change: MembershipChange) -> bool:
        self._say(f"{leader.name} {what}")
        return await self._ask(leader, leader.running.node.change_membership(change))

    async def _ask(self, host: SimulatedHost, work: Any) -> bool:
        """Have a member do something; whether it says that it did."""
        process = host.process
        assert process is not None
        asked = process.spawn(work)
        try:
            # Not always with patience: the next change may then come while this one is under way.
            async with asyncio.timeout(self._rng.choice((0.02, CALL_SECONDS))):
                await across(process, asked)
        except (ConnectKvError, ConnectionError, TimeoutError):
            return False
        return True


NETWORK = ("partition", "one-way", "bridge", "lossy", "slow-network", "clients")
PROCESSES = ("pause", "kill", "power", "power-all", "restart")
DISKS = ("crash-in-write", "failed-write", "disk-full", "slow-disk", "bit-rot")
MEMBERS = ("transfer", "members")
CLOCKS = ("wall-clock",)
ALL = (*NETWORK, *PROCESSES, *DISKS, *MEMBERS, *CLOCKS)
