"""The HTTP port: what probes and dashboards get."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest

from connect_kv.frontend.http.port import Answers, HttpPort
from connect_kv.metrics import CONTENT_TYPE, Metrics


class Probes:
    """What the checks answer; None is well."""

    def __init__(self) -> None:
        self.alarm: str | None = None
        self.read: str | None = None

    async def health(self, serializable: bool, excluded: frozenset[str]) -> str | None:
        if self.alarm is not None and self.alarm not in excluded:
            return f"ALARM {self.alarm}"
        return None if serializable else self.read

    async def local(self) -> str | None:
        return None

    async def linearizable(self) -> str | None:
        return self.read


@pytest.fixture
def probes() -> Probes:
    return Probes()


@pytest.fixture
async def url(probes: Probes) -> AsyncIterator[str]:
    metrics = Metrics(process=False)
    metrics.gauge("etcd_server_has_leader", "Whether a leader is known.", lambda: 1)
    answers = Answers(
        health=probes.health,
        live={"serializable_read": probes.local},
        ready={"serializable_read": probes.local, "linearizable_read": probes.linearizable},
        version={"etcdserver": "3.6.0"},
        metrics=metrics,
    )
    server = HttpPort(answers)
    await server.bind("127.0.0.1", 0)
    await server.serve()
    yield f"http://127.0.0.1:{server.port}"
    await server.stop()


async def test_who_connects_before_it_serves_is_answered_then(probes: Probes) -> None:
    port = HttpPort(
        Answers(
            health=probes.health,
            live={},
            ready={},
            version={"etcdserver": "3"},
            metrics=Metrics(process=False),
        )
    )
    await port.bind("127.0.0.1", 0)
    number = port.port
    asking = asyncio.create_task(get(f"http://127.0.0.1:{number}/version"))
    _, writer = await asyncio.open_connection("127.0.0.1", number)
    assert not asking.done()

    await port.serve()

    assert await asking == (200, '{"etcdserver":"3"}')
    writer.close()
    await port.stop()
    with pytest.raises(OSError, match=r"refused|Connect call failed"):
        await asyncio.open_connection("127.0.0.1", number)


async def test_a_port_that_is_taken_is_known_at_once(probes: Probes) -> None:
    first, second = (
        HttpPort(Answers(health=probes.health, live={}, ready={}, version={}, metrics=Metrics(process=False)))
        for _ in range(2)
    )
    await first.bind("127.0.0.1", 0)
    with pytest.raises(OSError, match="in use"):
        await second.bind("127.0.0.1", first.port)
    await first.stop()


async def get(url: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return answer.status, await answer.text()


async def test_health_is_a_string_with_a_reason(url: str, probes: Probes) -> None:
    assert await get(f"{url}/health") == (200, '{"health":"true","reason":""}')
    probes.read = "RAFT NO LEADER"
    assert await get(f"{url}/health") == (503, '{"health":"false","reason":"RAFT NO LEADER"}\n')
    assert (await get(f"{url}/health?serializable=true"))[0] == 200


async def test_an_alarm_can_be_excluded(url: str, probes: Probes) -> None:
    probes.alarm = "NOSPACE"
    assert (await get(f"{url}/health"))[0] == 503
    assert (await get(f"{url}/health?exclude=NOSPACE"))[0] == 200


async def test_ready_names_what_failed(url: str, probes: Probes) -> None:
    assert await get(f"{url}/readyz") == (200, "ok\n")
    probes.read = "no leader"
    code, text = await get(f"{url}/readyz")
    assert code == 503
    assert text == "[+]serializable_read ok\n[-]linearizable_read failed: no leader\n\n"
    assert (await get(f"{url}/readyz/serializable_read"))[0] == 200
    assert (await get(f"{url}/readyz?exclude=linearizable_read"))[0] == 200
    assert (await get(f"{url}/livez"))[0] == 200
    assert (await get(f"{url}/readyz/unheard_of"))[0] == 404


async def test_methods_types_and_paths_are_those_of_etcd(url: str) -> None:
    async def ask(method: str, path: str) -> tuple[int, str]:
        async with aiohttp.ClientSession() as session, session.request(method, url + path) as answer:
            if answer.status == 405:
                assert answer.headers["Allow"] == "GET"
            return answer.status, answer.headers["Content-Type"]

    text, json_type = "text/plain; charset=utf-8", "application/json"
    assert await ask("GET", "/health") == (200, text)
    assert await ask("GET", "/version") == (200, json_type)
    for path in ("/health", "/livez", "/readyz", "/readyz/serializable_read", "/version"):
        for method in ("HEAD", "POST", "PUT"):
            assert await ask(method, path) == (405, text), (method, path)
    for method in ("GET", "HEAD", "POST"):
        assert await ask(method, "/metrics") == (200, CONTENT_TYPE)
    for path in ("/nothing", "/readyz/unheard_of", "/livez/linearizable_read", "/livez/"):
        assert await ask("GET", path) == (404, text)


async def test_version_and_metrics(url: str) -> None:
    assert await get(f"{url}/version") == (200, '{"etcdserver":"3.6.0"}')
    code, text = await get(f"{url}/metrics")
    assert code == 200
    assert "etcd_server_has_leader 1.0" in text


async def test_anything_else_is_not_found(url: str) -> None:
    assert (await get(f"{url}/v3/kv/put"))[0] == 404
