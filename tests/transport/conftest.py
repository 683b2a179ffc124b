"""Nodes over gRPC, closed at the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
import uvloop

from tests.transport.helpers import Network


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """As members run; the contract of all transports is tried on asyncio's own loop."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def network() -> AsyncIterator[Network]:
    made = Network("grpc")
    yield made
    await made.close()
