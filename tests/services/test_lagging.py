"""A member that has fallen behind says so, and is ready once it has what was committed when it started."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp

from connect_kv.interfaces import ReplicatedState
from connect_kv.raft.types import Entry
from connect_kv.rpc import kv_pb2
from connect_kv.server.composition import KvServer, Seams
from tests.services.cluster import Member, agree, configs, running
from tests.services.conftest import until
from tests.services.test_health import KV, NOT_SERVING, SERVING, check


class Held:
    """A state that applies nothing while the gate is closed: a member far behind."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self._state: ReplicatedState[bytes]

    def around(self, state: ReplicatedState[bytes]) -> ReplicatedState[bytes]:
        self._state = state
        return self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._state, name)

    async def apply(self, entries: Sequence[Entry]) -> list[Sequence[bytes]]:
        await self.gate.wait()
        return await self._state.apply(entries)


async def probe(member: Member, path: str) -> tuple[int, str]:
    url = f"http://127.0.0.1:{member.server.services.http_port}{path}"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return answer.status, await answer.text()


async def test_a_member_is_ready_once_it_has_applied_what_was_committed_at_its_start(tmp_path: Path) -> None:
    wanted = configs(tmp_path, 3)
    async with running(wanted) as members:
        late = next(one for one in members if not one.server.node.is_leader)
        others = [one for one in members if one is not late]
        await late.server.stop()
        for number in range(50):
            put = kv_pb2.PutRequest(key=b"k%d" % number, value=b"v")
            await others[0].call("/etcdserverpb.KV/Put", put, kv_pb2.PutResponse)
        committed = others[0].server.node.status().raft.commit_index
        held = Held()
        late.server = KvServer(late.config, seams=Seams(state=held.around))
        await late.channel.close()
        await late.start()
        await until(lambda: agree(members))
        assert late.server.node.last_applied < committed
        status, text = await probe(late, "/readyz")
        assert status == 503
        assert "[-]linearizable_read failed" in text
        assert (await probe(late, "/livez"))[0] == 200
        assert (await probe(late, "/health"))[0] == 503
        assert (await probe(late, "/health?serializable=true"))[0] == 200
        assert await check(late, KV) == await check(late, "") == NOT_SERVING
        assert await check(late, "etcdserverpb.Maintenance") == SERVING
        held.gate.set()
        await until(lambda: late.server.services.health.serving(KV))
        assert late.server.node.last_applied >= committed
        assert (await probe(late, "/readyz")) == (200, "ok\n")
        assert await check(late, KV) == SERVING
