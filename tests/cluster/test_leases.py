"""Leases while the leader is killed: none ends early, none outlives its time by much."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import grpc

from connect_kv.client.client import Client
from connect_kv.rpc.lease_pb2 import LeaseKeepAliveRequest
from connect_kv.rpc.watch_pb2 import WatchCreateRequest
from connect_kv.testing.processes import NodeProcess, ProcessCluster, until
from tests.cluster.streams import Connections

LEASES = int(os.environ.get("CONNECT_KV_LEASES", 600))
TTL = int(os.environ.get("CONNECT_KV_TTL", 4))
SLACK = 2.0
"""Seconds a lease may live on beside its TTL and the time without a leader."""
CALLS_AT_ONCE = 200
PART = 500
"""Leases that are renewed by one stream, and granted together: in less than a TTL."""


class Renewals:
    """What keeps some leases alive: keep-alives through any node that answers."""

    def __init__(self, cluster: ProcessCluster, connections: Connections, leases: Iterable[int]) -> None:
        self._cluster = cluster
        self._connections = connections
        self.leases = list(leases)
        self.sent: dict[int, float] = {}
        """When the last renewal that was answered had been sent,"""
        self.answered: dict[int, float] = {}
        """and when it was answered, or the answer was given up: it may have been applied till then."""
        self.rounds = 0
        self.late = 0
        """Renewals that came after the end of their lease."""
        self.stopped = False

    async def run(self) -> None:
        """Renew all, and again, until told to stop."""
        turn = 0
        while not self.stopped:
            turn += 1
            running = [node for node in self._cluster.nodes if node.running]
            try:
                async with asyncio.timeout(TTL / 4):
                    await self._renew_all(running[turn % len(running)])
                self.rounds += 1
                await asyncio.sleep(TTL / 8)
            except (grpc.aio.AioRpcError, TimeoutError):
                await asyncio.sleep(0.05)

    async def _renew_all(self, node: NodeProcess) -> None:
        loop = asyncio.get_running_loop()
        call = self._connections.keep_alive(node)
        began = loop.time()

        async def send() -> None:
            for lease in list(self.leases):
                await call.write(LeaseKeepAliveRequest(ID=lease))

        sender = asyncio.create_task(send())
        waiting = set(self.leases)
        try:
            while waiting:
                response = await call.read()
                if response is grpc.aio.EOF:
                    raise TimeoutError
                waiting.discard(response.ID)
                if response.TTL:
                    self.sent[response.ID], self.answered[response.ID] = began, loop.time()
                else:  # this process was too slow: whether the lease ended early is judged in the end
                    self.leases.remove(response.ID)
                    self.late += 1
        finally:
            for lease in waiting:
                self.answered[lease] = loop.time()
            call.cancel()
            sender.cancel()
            with suppress(asyncio.CancelledError, grpc.aio.AioRpcError, asyncio.InvalidStateError):
                await sender


async def grant(client: Client, leases: Sequence[int]) -> None:
    """Each with a key of its own."""
    limit = asyncio.Semaphore(CALLS_AT_ONCE)

    async def one(lease: int) -> None:
        async with limit:
            await client.grant_lease(TTL, id=lease, timeout=60)
            await client.put(f"lease/{lease}", "", lease=lease, timeout=60)

    await asyncio.gather(*(one(lease) for lease in leases))


async def note_ends(connections: Connections, nodes: Sequence[NodeProcess], ended: dict[int, float]) -> None:
    """When each key was deleted, as the first of some nodes says so."""
    loop = asyncio.get_running_loop()

    async def listen(node: NodeProcess) -> None:
        revision = 2
        while True:
            create = WatchCreateRequest(key=b"lease/", range_end=b"lease0", start_revision=revision)
            create.filters.append(WatchCreateRequest.NOPUT)
            with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                call = await connections.watch(node, create)
                while (response := await call.read()) is not grpc.aio.EOF:
                    for event in response.events:
                        ended.setdefault(int(event.kv.key[6:]), loop.time())
                        revision = event.kv.mod_revision + 1
            await asyncio.sleep(0.05)

    await asyncio.gather(*(listen(node) for node in nodes))


async def time_until_written(client: Client) -> float:
    """Seconds until a write goes through: how long there was no leader, or a little more."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    await client.put("after", "", timeout=60)
    return loop.time() - began


async def test_leases_end_in_time_though_the_leader_is_killed(tmp_path: Path) -> None:
    """Half of them go on being renewed; the other half is left alone a little before the leader dies."""
    loop = asyncio.get_running_loop()
    leases = range(1, LEASES + 1)
    kept, left = leases[: LEASES // 2], leases[LEASES // 2 :]
    async with (
        ProcessCluster(tmp_path) as cluster,
        cluster.client() as client,
        Connections(cluster.nodes) as connections,
    ):
        # Granted with a renewal under way at once: granting many takes longer than a TTL.
        renewals: list[Renewals] = []
        tasks: list[asyncio.Task[None]] = []
        for some in (kept, left):
            for start in range(0, len(some), PART):
                part = some[start : start + PART]
                await grant(client, part)
                renewals.append(Renewals(cluster, connections, part))
                tasks.append(asyncio.create_task(renewals[-1].run()))
        ended: dict[int, float] = {}
        listener = asyncio.create_task(note_ends(connections, cluster.nodes, ended))

        async def all_renewed() -> bool:
            assert not [task for task in tasks if task.done()], tasks
            return all(one.rounds >= 2 for one in renewals)

        await until(all_renewed, 60, "two rounds of renewals")
        leaving = [one for one in renewals if one.leases and one.leases[0] in left]
        for one in leaving:
            one.stopped = True
        await asyncio.gather(*(task for one, task in zip(renewals, tasks, strict=True) if one in leaving))
        leader = await cluster.leader()
        await leader.kill()
        pause = await time_until_written(client)

        async def left_have_ended() -> bool:
            assert not [t for t, r in zip(tasks, renewals, strict=True) if t.done() and r not in leaving], (
                tasks
            )
            return all(lease in ended for lease in left)

        await until(left_have_ended, TTL + pause + 30, "the leases left alone to end")
        await leader.start()
        await leader.ready()
        beyond = loop.time() + TTL + SLACK

        async def a_ttl_later() -> bool:
            return loop.time() > beyond

        await until(a_ttl_later, TTL + SLACK + 5, "a TTL to pass")
        for one in renewals:
            one.stopped = True
        await asyncio.gather(*tasks)
        listener.cancel()
        sent = {lease: moment for one in renewals for lease, moment in one.sent.items()}
        for lease in kept:
            early = lease in ended and ended[lease] - sent[lease] < TTL
            assert not early, f"lease {lease} ended {ended[lease] - sent[lease]:.2f} s after its renewal"
        assert sum(one.late for one in renewals) < LEASES / 10, "this machine is too slow for the test"
        lived = sorted(ended[lease] - one.answered[lease] for one in leaving for lease in one.leases)
        least = min(ended[lease] - one.sent[lease] for one in leaving for lease in one.leases)
        print(f"{LEASES} leases of {TTL} s, {pause:.2f} s without a leader; those left alone ended")
        print(f"{least:.2f} s or more after their last renewal was sent,")
        print(f"{lived[-1]:.2f} s or less after it was answered")
        assert least >= TTL
        assert lived[-1] <= TTL + pause + SLACK
