"""Fake members for the tests of the client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from tests.client.fake_server import FakeCluster, FakeMember


@pytest.fixture
async def cluster() -> FakeCluster:
    return FakeCluster()


@pytest.fixture
async def members(cluster: FakeCluster) -> AsyncIterator[list[FakeMember]]:
    async with AsyncExitStack() as stack:
        three = [FakeMember(cluster) for _ in range(3)]
        for member in three:
            await member.start()
            stack.push_async_callback(member.stop)
        yield three


@pytest.fixture
def endpoints(members: list[FakeMember]) -> str:
    return ",".join(member.address for member in members)
