"""gRPC-go, as it is in etcdctl 3.4 and 3.5, against our server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from connect_kv.http2.frames import HEADERS, PING, SETTINGS
from connect_kv.http2.limits import Limits
from tests.etcd import ENVIRONMENT, find_etcdctl, skip_loudly
from tests.http2.conftest import until
from tests.http2.keys import Keys
from tests.http2.recorded import Recorded, recorded

__all__ = ["recorded"]

pytestmark = pytest.mark.cluster

PROGRAMS = find_etcdctl()


class Etcdctl:
    def __init__(self, program: str, port: int) -> None:
        self._program = program
        self._port = port

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            self._program,
            *("--endpoints", f"127.0.0.1:{self._port}", *arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**ENVIRONMENT, "ETCDCTL_API": "3"},
        )

    async def run(self, *arguments: str, given: bytes = b"") -> tuple[int | None, str]:
        process = await self.start(*arguments)
        async with asyncio.timeout(60):
            output, _ = await process.communicate(given)
        return process.returncode, output.decode()


@pytest.fixture
def keys() -> Keys:
    return Keys()


@pytest.fixture(params=["3.4", "3.5"])
async def etcdctl(request: pytest.FixtureRequest, keys: Keys) -> AsyncIterator[Etcdctl]:
    program = PROGRAMS.get(request.param)
    if program is None:
        skip_loudly(f"no etcdctl {request.param}: scripts/ci-tools and the extra dev install them")
    server, port = await keys.start(Limits(streams=200))
    yield Etcdctl(str(program), port)
    keys.hold.clear()
    await server.stop(0)


async def test_calls_and_their_statuses(etcdctl: Etcdctl) -> None:
    assert await etcdctl.run("put", "a", "b") == (0, "OK\n")
    assert await etcdctl.run("get", "a") == (0, "a\nb\n")
    code, output = await etcdctl.run("put", "refused", "x")
    assert code == 1
    assert "code = FailedPrecondition desc = größer als 50%, sagt der Dienst" in output
    code, output = await etcdctl.run("endpoint", "status")
    assert "FailedPrecondition desc = no status here: 50% of größe" in output
    code, output = await etcdctl.run("lease", "list")
    assert "code = Unimplemented desc = unknown service etcdserverpb.Lease" in output


async def test_a_stream_and_one_that_the_server_ends_first(etcdctl: Etcdctl, recorded: Recorded) -> None:
    watch = await etcdctl.start("watch", "a")
    assert watch.stdout is not None
    async with asyncio.timeout(30):
        assert [(await watch.stdout.readline()).decode() for _ in range(3)] == ["PUT\n", "a\n", "seen\n"]
    watch.terminate()
    await watch.wait()
    code, output = await etcdctl.run("watch", "end")
    assert code != 0
    assert "PermissionDenied desc = the watch ends here" in output


async def test_ten_thousand_calls_of_fifty_at_a_time_with_their_pings(
    etcdctl: Etcdctl, keys: Keys, recorded: Recorded
) -> None:
    """Its check also reads /metrics on the same port by HTTP/1.1."""
    code, output = await etcdctl.run("check", "datascale", "--load", "s")
    assert code == 0, output
    assert "PASS" in output
    assert len(keys.executed) >= 10_000
    assert max(keys.batches) > 1
    assert recorded.kinds()[PING] > 100
    # Almost all of its calls have a deadline of their own, so that no two blocks of fields are alike.
    assert recorded.decoded < recorded.kinds()[HEADERS] * 0.6


async def test_one_megabyte_there_and_back(etcdctl: Etcdctl, keys: Keys, recorded: Recorded) -> None:
    """It raises its windows with SETTINGS while the answer comes."""
    body = "v" * 1_000_000
    assert await etcdctl.run("put", "large", given=body.encode()) == (0, "OK\n")
    assert keys.values[b"large"] == body.encode()
    code, output = await etcdctl.run("get", "large", "--print-value-only")
    assert (code, output) == (0, body + "\n")
    assert recorded.kinds()[SETTINGS] > 4


async def test_a_deadline_reaches_the_server_and_ends_the_call_on_both_sides(
    etcdctl: Etcdctl, keys: Keys, recorded: Recorded
) -> None:
    keys.hold.set()
    code, output = await etcdctl.run("--command-timeout=1500ms", "put", "a", "dead")
    assert code != 0
    assert "context deadline exceeded" in output.lower()
    (call,) = keys.held
    assert call.head.timeout is not None
    assert 0 < call.head.timeout <= 1.5
    await until(call.gone)
    keys.release()
    assert call.gone()
    assert await etcdctl.run("put", "a", "alive") == (0, "OK\n")


async def test_a_watch_goes_on_with_the_next_server_after_a_drain(keys: Keys) -> None:
    program = PROGRAMS.get("3.5") or PROGRAMS.get("3.4")
    if program is None:
        skip_loudly("no etcdctl: scripts/ci-tools and the extra dev install them")
    server, port = await keys.start()
    watch = await Etcdctl(str(program), port).start("watch", "a")
    assert watch.stdout is not None
    async with asyncio.timeout(30):
        assert await watch.stdout.readline() == b"PUT\n"
        await server.stop(0.1)
        other, _ = await keys.start(port=port)
        for wanted in (b"a\n", b"seen\n", b"PUT\n", b"a\n", b"seen\n"):
            assert await watch.stdout.readline() == wanted
    watch.terminate()
    await watch.wait()
    await other.stop(0)
