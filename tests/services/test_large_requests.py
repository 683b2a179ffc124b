"""A limit that an operator raised holds all the way: at the door, between members, in the log."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

import connect_kv
from connect_kv.config import MAX_REQUEST_BYTES
from connect_kv.errors import RequestTooLarge
from tests.services.cluster import configs, running

pytestmark = pytest.mark.long


async def test_the_largest_request_there_may_be_goes_through_a_follower(tmp_path: Path) -> None:
    value = random.Random(1).randbytes(MAX_REQUEST_BYTES - 4096)
    # The time limit of a call grows with the election timeout: so large a one may take long here.
    wanted = [
        replace(one, max_request_bytes=MAX_REQUEST_BYTES, heartbeat_ms=200, election_ms=4000)
        for one in configs(tmp_path, 3)
    ]
    async with running(wanted) as members:
        follower = next(one for one in members if not one.server.node.is_leader)
        async with connect_kv.connect(follower.server.client_address) as client:
            with pytest.raises(RequestTooLarge, match="a session carries"):
                await client.put("large", value, timeout=30)
        async with connect_kv.connect(follower.server.client_address, session=False) as client:
            await client.put("large", value, timeout=30)
            with pytest.raises(RequestTooLarge, match="request is too large"):
                await client.put("too large", value + bytes(8192), timeout=30)
        for member in members:
            async with connect_kv.connect(member.server.client_address, session=False) as client:
                found = await client.get("large", timeout=30)
                assert found is not None
                assert found.value == value
