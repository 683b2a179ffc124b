"""Nodes over gRPC, closed at the end."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.transport.helpers import Network


@pytest.fixture
async def network() -> AsyncIterator[Network]:
    made = Network("grpc")
    yield made
    await made.close()
