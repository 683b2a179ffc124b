"""What etcd's documentation of its gateway does with curl, by curl: answers from here are etcd's."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from tests.etcd import Etcd, etcd_or_skip, skip_loudly
from tests.gateway.conftest import member

Json = dict[str, Any]
Curl = Callable[..., Coroutine[Any, Any, tuple[int, Json]]]
SECONDS = 30


class Running:
    """A curl that was started; what it prints is read line by line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, *words: str) -> Running:
        pipe = asyncio.subprocess.PIPE
        return cls(await asyncio.create_subprocess_exec("curl", "-sS", *words, stdout=pipe))

    async def line(self) -> str:
        assert self._process.stdout is not None
        async with asyncio.timeout(SECONDS):
            return (await self._process.stdout.readline()).decode()

    async def rest(self) -> str:
        assert self._process.stdout is not None
        async with asyncio.timeout(SECONDS):
            text = (await self._process.stdout.read()).decode()
            assert await self._process.wait() == 0
        return text

    async def end(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()


def normal(value: Any) -> Any:
    """Without what no two clusters share: ids and terms have to be there, as numbers in strings."""
    if isinstance(value, dict):
        for name in {"cluster_id", "member_id", "raft_term"} & value.keys():
            assert int(value[name]) > 0
            assert isinstance(value[name], str)
        return {
            name: "N" if name in ("cluster_id", "member_id", "raft_term") else normal(item)
            for name, item in value.items()
        }
    return [normal(item) for item in value] if isinstance(value, list) else value


def header(revision: int) -> Json:
    return {"cluster_id": "N", "member_id": "N", "revision": str(revision), "raft_term": "N"}


def key(created: int, modified: int, version: int) -> Json:
    """The key foo, with bar in it."""
    numbers = {"create_revision": str(created), "mod_revision": str(modified), "version": str(version)}
    return {"key": "Zm9v", **numbers, "value": "YmFy"}


@pytest.fixture(params=["here", "etcd"])
async def port(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[int]:
    """What is expected of the member is asked of an etcd too, so that it is known to be etcd's."""
    if request.param == "here":
        async with member(tmp_path) as server:
            yield server.services.client_port
    else:
        async with Etcd(tmp_path, etcd_or_skip()) as etcd:
            yield etcd.client_port


@pytest.fixture
def curl(port: int) -> Curl:
    """Status and answer of one line of the documentation."""
    if shutil.which("curl") is None:
        skip_loudly("curl")

    async def run(path: str, body: str, *more: str) -> tuple[int, Json]:
        url = f"http://localhost:{port}{path}"
        running = await Running.start("-L", url, "-X", "POST", "-d", body, *more, "-w", "\n%{http_code}")
        try:
            text, _, status = (await running.rest()).rpartition("\n")
        finally:
            await running.end()
        return int(status), normal(json.loads(text))

    return run


PUT = '{"key": "Zm9v", "value": "YmFy"}'


async def test_put_and_range(curl: Curl) -> None:
    assert await curl("/v3/kv/put", PUT) == (200, {"header": header(2)})
    found = {"header": header(2), "kvs": [key(2, 2, 1)], "count": "1"}
    assert await curl("/v3/kv/range", '{"key": "Zm9v"}') == (200, found)
    assert await curl("/v3/kv/range", '{"key": "Zm9v", "range_end": "Zm9w"}') == (200, found)


async def test_a_watch_in_the_background(curl: Curl, port: int) -> None:
    watch = await Running.start(
        "-N", f"http://localhost:{port}/v3/watch", "-X", "POST", "-d", '{"create_request": {"key":"Zm9v"} }'
    )
    try:
        created = {"header": header(1), "created": True}
        assert normal(json.loads(await watch.line())) == {"result": created}
        assert await curl("/v3/kv/put", PUT) == (200, {"header": header(2)})
        put = {"header": header(2), "events": [{"kv": key(2, 2, 1)}]}
        assert normal(json.loads(await watch.line())) == {"result": put}
    finally:
        await watch.end()


async def test_transactions_that_compare_a_revision_and_a_version(curl: Curl) -> None:
    await curl("/v3/kv/put", PUT)
    put = '"success":[{"requestPut":{"key":"Zm9v","value":"YmFy"}}]'
    created = '{"compare":[{"target":"CREATE","key":"Zm9v","createRevision":"%d"}],' + put + "}"
    done = [{"response_put": {"header": {"revision": "3"}}}]
    wanted = {"header": header(3), "succeeded": True, "responses": done}
    assert await curl("/v3/kv/txn", created % 2) == (200, wanted)
    assert await curl("/v3/kv/txn", created % 9) == (200, {"header": header(3)})
    compare = '{"version":"2","result":"EQUAL","target":"VERSION","key":"Zm9v"}'
    ranged = '{"compare":[' + compare + '],"success":[{"requestRange":{"key":"Zm9v"}}]}'
    read = {"header": {"revision": "3"}, "kvs": [key(2, 3, 2)], "count": "1"}
    wanted = {"header": header(3), "succeeded": True, "responses": [{"response_range": read}]}
    assert await curl("/v3/kv/txn", ranged) == (200, wanted)


async def test_a_lease_and_a_key_that_hangs_on_it(curl: Curl) -> None:
    granted = {"header": header(1), "ID": "77", "TTL": "60"}
    assert await curl("/v3/lease/grant", '{"ID": 77, "TTL": 60}') == (200, granted)
    leased = '{"key": "Zm9v", "value": "YmFy", "lease": "77"}'
    assert await curl("/v3/kv/put", leased) == (200, {"header": header(2)})
    kv = {**key(2, 2, 1), "lease": "77"}
    found = {"header": header(2), "kvs": [kv], "count": "1"}
    assert await curl("/v3/kv/range", '{"key": "Zm9v"}') == (200, found)


async def test_authentication_is_set_up_and_a_token_used(curl: Curl) -> None:
    steps = {
        "/v3/auth/user/add": '{"name": "root", "password": "pass"}',
        "/v3/auth/role/add": '{"name": "root"}',
        "/v3/auth/user/grant": '{"user": "root", "role": "root"}',
        "/v3/auth/enable": "{}",
    }
    for path, body in steps.items():
        assert await curl(path, body) == (200, {"header": header(1)}), path
    status, found = await curl("/v3/auth/authenticate", '{"name": "root", "password": "pass"}')
    token = found.pop("token")
    assert (status, found) == (200, {"header": header(1)})
    refused, why = await curl("/v3/kv/put", PUT)
    assert (refused, why["code"], why["message"]) == (400, 3, "etcdserver: user name is empty")
    assert await curl("/v3/kv/put", PUT, "-H", f"Authorization: {token}") == (200, {"header": header(2)})
    wrong, why = await curl("/v3/kv/put", PUT, "-H", "Authorization: wrong")
    assert (wrong, why["code"], why["message"]) == (401, 16, "etcdserver: invalid auth token")
