"""Looks now and then for a member whose data is wrong, and raises CORRUPT for it.

The leader compares the members' histories; each member compares the rest of its state with its own.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence

from connect_kv.errors import ConnectKvError
from connect_kv.interfaces import Clock
from connect_kv.node.node import RaftNode
from connect_kv.rpc.maintenance_pb2 import HashKVRequest, HashKVResponse
from connect_kv.services.peer_calls import PeerCalls

logger = logging.getLogger(__name__)

_ANSWER_SECONDS = 60.0
"""A large history takes a while to read."""


class CorruptionCheck:
    """`run` is its task on every member."""

    def __init__(
        self,
        node: RaftNode[bytes],
        own_id: int,
        *,
        peers: PeerCalls,
        hash_kv: Callable[[int], Awaitable[HashKVResponse]],
        difference: Callable[[], Awaitable[str | None]],
        corrupt: Callable[[int], Awaitable[None]],
        machines: Callable[[], Awaitable[Mapping[str, Sequence[str]]]],
        clock: Clock,
        every: float,
    ) -> None:
        """`difference` tells what of this member's state does not follow from its history.

        `corrupt` raises the alarm for a member. `machines` compares the states of user machines, and
        suspends those that differ. `every` in seconds, 0: never.
        """
        self._machines = machines
        self._node = node
        self._own_id = own_id
        self._peers = peers
        self._hash_kv = hash_kv
        self._difference = difference
        self._corrupt = corrupt
        self._clock = clock
        self._every = every

    async def run(self) -> None:
        """Compare again and again, until cancelled."""
        while self._every > 0:
            await self._clock.sleep(self._every)
            if await self.inconsistent():
                await self._corrupt(self._own_id)
            if self._node.is_leader:
                for node_id in sorted(await self.differing()):
                    await self._corrupt(node_id)
                await self.compare_machines()

    async def compare_machines(self) -> None:
        """Name members whose machines are not as the others'; keys and other machines go on."""
        try:
            differing = await self._machines()
        except (ConnectKvError, TimeoutError) as error:
            logger.warning("the machines were not compared: %s", error)
            return
        for machine, members in differing.items():
            logger.error(
                "the state of a machine differs from the others'",
                extra={"machine": machine, "members": ", ".join(members)},
            )

    async def inconsistent(self) -> bool:
        """Whether this member's state does not follow from its history."""
        try:
            difference = await self._difference()
        except ConnectKvError as error:
            logger.warning("this member's state was not checked: %s", error)
            return False
        if difference is not None:
            logger.error(
                "this member's state does not follow from its history", extra={"difference": difference}
            )
        return difference is not None

    async def differing(self) -> frozenset[int]:
        """Members whose history is not that of the others. Those that cannot be compared now are left out."""
        try:
            own = await self._hash_kv(0)
        except ConnectKvError as error:
            logger.warning("the members were not compared: %s", error)
            return frozenset()
        others = [node_id for node_id in self._node.membership.node_ids if node_id != self._own_id]
        answers = await asyncio.gather(*(self._ask(node_id, own.hash_revision) for node_id in others))
        hashes = {self._own_id: own.hash}
        for node_id, answer in zip(others, answers, strict=True):
            if answer is not None and answer.compact_revision == own.compact_revision:
                hashes[node_id] = answer.hash
        wrong = wrong_among(hashes, self._own_id)
        for node_id in wrong:
            logger.error(
                "a member's data differs from the others'",
                extra={"member": f"{node_id:x}", "revision": own.hash_revision, "hash": hashes[node_id]},
            )
        return wrong

    async def _ask(self, node_id: int, revision: int) -> HashKVResponse | None:
        request = HashKVRequest(revision=revision).SerializeToString()
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                return HashKVResponse.FromString(await self._peers.ask(node_id, "HashKV", request))
        except (ConnectKvError, TimeoutError) as error:
            logger.info("a member was not compared", extra={"member": f"{node_id:x}", "reason": str(error)})
            return None


def wrong_among(hashes: dict[int, int], leader: int) -> frozenset[int]:
    """Who differs from what most have; if there is no such majority, who differs from the leader."""
    found, count = Counter(hashes.values()).most_common(1)[0]
    right = found if count * 2 > len(hashes) else hashes[leader]
    return frozenset(node_id for node_id, value in hashes.items() if value != right)
