from asyncio import AbstractEventLoop
from collections.abc import AsyncIterator, Callable, Mapping

import pytest

from connect_kv.testing.simulation.clock import VirtualLoop
from tests.node.cluster import Trio


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], AbstractEventLoop]]:
    """Every test of this folder runs in virtual time."""
    return {"virtual": VirtualLoop}


@pytest.fixture
async def trio() -> AsyncIterator[Trio]:
    """Three nodes, not started yet; whatever runs at the end is killed."""
    cluster = Trio()
    yield cluster
    await cluster.kill_all()
