"""The same random requests to a real etcd and to connect-kv are answered the same, field by field.

A short run; ``scripts/differential`` makes long ones.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from connect_kv.testing.processes import ProcessCluster
from tests.differential import again
from tests.differential.generator import Generator
from tests.differential.intended import CASES
from tests.differential.rights import RightsPair
from tests.differential.session import Pair
from tests.differential.target import Target
from tests.etcd import Etcd, etcd_or_skip

pytestmark = pytest.mark.cluster

SEEDS = int(os.environ.get("CONNECT_KV_SEEDS", 4))
REQUESTS = 500
CHEAP_HASHES = ("--bcrypt-cost", "4")
DOCUMENT = Path(__file__).parents[2] / "docs" / "api.md"


def compare(theirs: str, ours: str, seeds: range) -> int:
    """Requests sent to each side."""
    left, right = Target("etcd", theirs), Target("connect-kv", ours)
    total = 0
    for seed in seeds:
        pair = Pair(left, right, seed)
        pair.run(REQUESTS)
        total += pair.requests
    left.close()
    right.close()
    return total


@pytest.mark.parametrize("nodes", [1, 3])
async def test_random_requests_are_answered_as_by_etcd(nodes: int, tmp_path: Path) -> None:
    program = etcd_or_skip()
    async with (
        Etcd(tmp_path / "etcd", program, fsync=False) as etcd,
        ProcessCluster(tmp_path / "ours", nodes) as cluster,
    ):
        seeds = range(100 * nodes, 100 * nodes + SEEDS)
        total = await asyncio.to_thread(compare, etcd.client_address, cluster.endpoints, seeds)
    print(f"{total} requests answered alike by etcd and by {nodes} node(s)")


@pytest.mark.parametrize("nodes", [1, 3])
async def test_what_users_may_do_is_what_they_may_do_in_etcd(nodes: int, tmp_path: Path) -> None:
    program = etcd_or_skip()

    def compared(theirs: str, ours: str) -> int:
        left, right = Target("etcd", theirs), Target("connect-kv", ours)
        refused = 0
        for seed in range(100 * nodes, 100 * nodes + SEEDS):
            pair = RightsPair(left, right, seed)
            pair.run(REQUESTS // 2)
            refused += pair.refused
        left.close()
        right.close()
        return refused

    async with (
        Etcd(tmp_path / "etcd", program, fsync=False, arguments=CHEAP_HASHES) as etcd,
        ProcessCluster(tmp_path / "ours", nodes, arguments=CHEAP_HASHES) as cluster,
    ):
        refused = await asyncio.to_thread(compared, etcd.client_address, cluster.endpoints)
    assert refused > SEEDS * REQUESTS // 20, "both answers must be common"
    assert "**A range whose end is at or below its key**" in DOCUMENT.read_text()


@pytest.mark.parametrize("nodes", [1, 3])
async def test_lease_ids_granted_again_end_when_their_own_time_is_over(nodes: int, tmp_path: Path) -> None:
    program = etcd_or_skip()
    async with (
        Etcd(tmp_path / "etcd", program, fsync=False) as etcd,
        ProcessCluster(tmp_path / "ours", nodes) as cluster,
    ):
        targets = Target("etcd", etcd.client_address), Target("connect-kv", cluster.endpoints)
        both = await asyncio.gather(
            *(asyncio.to_thread(again.grant_again, target, again.SHORT + again.LATE) for target in targets)
        )
        for target, told in zip(targets, both, strict=True):
            target.close()
            for one in told:
                ttl, where = one.life.ttls[-1], f"{target.name}: {one}"
                assert one.remaining, where
                assert all(0 <= left <= ttl for left in one.remaining), where
                if ttl == again.LONG:
                    assert one.gone is None, where
                else:
                    assert one.gone is not None, where
                    assert ttl <= one.gone < ttl + again.LATE, where


async def test_intended_differences_are_as_listed(tmp_path: Path) -> None:
    """Each stands in docs/api.md; one that is gone, or is another, must change there too."""
    program = etcd_or_skip()
    text = DOCUMENT.read_text()
    async with (
        Etcd(tmp_path / "etcd", program, fsync=False) as etcd,
        ProcessCluster(tmp_path / "ours", 1) as cluster,
    ):
        theirs, ours = Target("etcd", etcd.client_address), Target("connect-kv", cluster.endpoints)
        for case in CASES:
            assert case.title in text, f"docs/api.md does not mention: {case.title}"
            assert await asyncio.to_thread(case.ask, theirs) == case.theirs, case.title
            assert await asyncio.to_thread(case.ask, ours) == case.ours, case.title
        theirs.close()
        ours.close()


def test_the_generator_is_repeatable() -> None:
    first, second = Generator(5), Generator(5)
    assert [first.request() for _ in range(200)] == [second.request() for _ in range(200)]
