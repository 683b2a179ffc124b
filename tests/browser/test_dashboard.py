"""The dashboard in a real browser, Debian's Chromium, beside real members."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from connect_kv.client import txn
from connect_kv.client.client import Client
from connect_kv.rpc.auth_pb2 import Permission
from connect_kv.testing.processes import ProcessCluster, until

HERE = Path(__file__).parent
SECONDS = 60.0
KEYS = 100_000
AT_ONCE = 128
FIRST_VIEW_MS = 300
BUSY = 5
"""How many times as long a busy machine may take."""
pytestmark = [pytest.mark.cluster, pytest.mark.asyncio(loop_scope="module")]

Answer = Callable[[str], Awaitable[None]]


def needed() -> str:
    """Node.js, if all is there; else the test is skipped, loudly."""
    node = shutil.which("node")
    if node and Path("/usr/bin/chromium").exists() and (HERE / "node_modules" / "playwright-core").is_dir():
        return node
    print("\nSKIPPED FOR LACK OF A BROWSER: run scripts/ci-tools", file=sys.stderr)
    pytest.skip("Chromium or what drives it is not installed; scripts/ci-tools installs them")


async def drive(
    scenario: str, address: str, given: Mapping[str, object] | None = None, answer: Answer | None = None
) -> dict[str, object]:
    """Run a scenario of drive.mjs; `answer` does what it asks for. Gives what was measured."""
    process = await asyncio.create_subprocess_exec(
        needed(),
        str(HERE / "drive.mjs"),
        scenario,
        f"http://{address}/",
        json.dumps(given or {}),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    told: list[str] = []
    try:
        async with asyncio.timeout(SECONDS):
            while line := (await process.stdout.readline()).decode().rstrip():
                told.append(line)
                if line.startswith("ok "):
                    found: dict[str, object] = json.loads(line[3:])
                    print(f"\n{scenario}: {found}")
                    return found
                if answer is not None and not line.startswith(("failed", " ")):
                    await answer(line)
                    process.stdin.write(b"done\n")
            told += (await process.stdout.read()).decode().splitlines()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
    raise AssertionError("\n".join(told[:40]))


async def fill(client: Client) -> None:
    """As many keys as nobody wants to scroll through: in a hundred folders and more."""

    async def some(first: int) -> None:
        await client.transaction(
            success=[
                txn.put(f"load/{number % 500:03}/{number:06}", f"value {number}")
                for number in range(first, min(first + AT_ONCE, KEYS))
            ]
        )

    waiting = asyncio.Semaphore(16)

    async def bounded(first: int) -> None:
        async with waiting:
            await some(first)

    await asyncio.gather(*(bounded(first) for first in range(0, KEYS, AT_ONCE)))


class Shown:
    """The cluster that is looked at."""

    def __init__(self, cluster: ProcessCluster, before: int) -> None:
        self.cluster = cluster
        self.before = before
        """The revision before the many keys."""

    @property
    def address(self) -> str:
        return self.cluster.nodes[0].client_address


@asynccontextmanager
async def shown(directory: Path) -> AsyncIterator[Shown]:
    cluster = ProcessCluster(directory, 3, machines={"counter": "counter.machine:Counter"})
    for node in cluster.nodes:
        node.arguments += ["--dashboard", "write"]
        node.environment["PYTHONPATH"] = str(HERE.parents[1] / "examples")
    async with cluster, cluster.client(session=False) as client:
        for limit in (10, 11, 12):
            value = {"name": "shop", "limit": limit, "in": ["eu", "us"]}
            await client.put("config/app.json", json.dumps(value))
        await client.put("binary", bytes(range(256)))
        await client.put("<img src=x onerror=alert(1)>", "<script>alert(2)</script>")
        before = (await client.put("zebra", "striped")).header.revision
        await fill(client)
        lease, _ = await client.grant_lease(3600)
        await client.put("services/web/1", "10.0.0.1:80", lease=lease)
        yield Shown(cluster, before)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def here(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shown]:
    needed()
    async with shown(tmp_path_factory.mktemp("shown")) as found:
        yield found


@pytest.mark.parametrize("scenario", ["overview", "markup", "machines", "keyboard", "narrow", "theme"])
async def test_a_view(scenario: str, here: Shown) -> None:
    await drive(scenario, here.address)


async def test_a_hundred_thousand_keys_are_walked_through_as_a_tree(here: Shown) -> None:
    await drive("keys", here.address, {"before": here.before})


async def test_nothing_stands_in_the_way_of_who_cannot_see_the_page(here: Shown) -> None:
    await drive("barriers", here.address)


async def test_a_key_is_looked_at_changed_and_watched(here: Shown) -> None:
    async with here.cluster.client(session=False) as client:

        async def write(line: str) -> None:
            assert line == "write"
            await client.put("config/app.json", "theirs")

        await drive("key", here.address, answer=write)


async def test_who_holds_a_lock_and_who_waits(here: Shown) -> None:
    clients = (here.cluster.client(session=False) for _ in range(2))
    async with next(clients) as first, next(clients) as second, first.lock("printer"):
        waiting = asyncio.create_task(second.lock("printer").__aenter__())

        async def both() -> bool:
            return len(await first.get_prefix("printer/")) == 2

        try:
            await until(both, 20, "the second in the queue")
            await drive("leases", here.address)
        finally:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)


async def test_a_member_dies_while_one_looks(here: Shown) -> None:
    nodes = here.cluster.nodes
    victim = nodes[2]

    async def hurt(line: str) -> None:
        nonlocal victim
        if line.startswith("kill"):
            victim = nodes[0] if line == "kill this" else nodes[2]
            await victim.kill()
        else:
            await victim.start()
            await victim.ready()

    await drive("dying", here.address, answer=hurt)


async def test_who_must_log_in_sees_what_they_may_and_changes_nothing(tmp_path: Path) -> None:
    needed()
    async with ProcessCluster(tmp_path, 1) as cluster:
        async with cluster.client(session=False) as client:
            await client.put("app/one", "for al")
            await client.put("other", "not for al")
            await client.auth.add_user("root", "pw")
            await client.auth.grant_role("root", "root")
            await client.auth.add_user("al", "secret")
            await client.auth.add_role("reader")
            await client.auth.grant("reader", Permission.READ, "app/", prefix=True)
            await client.auth.grant_role("al", "reader")
            await client.auth.enable()
        await drive("login", cluster.nodes[0].client_address)


async def test_a_first_view_is_light_and_soon_there(tmp_path: Path) -> None:
    """Its weight is the same on any machine; the time, of a busy one, only shows what went badly wrong."""
    needed()
    async with ProcessCluster(tmp_path, 1) as cluster:
        found = await drive("first", cluster.nodes[0].client_address)
    for weight in (numbers(found["plain"]), numbers(found["sent"])):
        assert min(weight) > 10_000, "something was not counted"
        assert max(weight) < 150_000
    for time in (numbers(found["paint_ms"]), numbers(found["members_ms"])):
        assert 0 < min(time) < FIRST_VIEW_MS * BUSY


def numbers(value: object) -> list[int]:
    assert isinstance(value, list)
    return [int(one) for one in value]
