"""A class is upgraded member by member on a running cluster: no answer is lost, changed, or out of order."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from connect_kv import BadCall, CommandFailed, OutcomeUnknown, Refused, Unavailable, connect
from connect_kv.client.client import Client
from connect_kv.testing.processes import NodeProcess, ProcessCluster, until
from tests.cluster.versions import MARK, First, OutOfStock, Third

MACHINES = {"inventory": "tests.cluster.versions:Inventory"}
CALLERS = 50
SECONDS = 30.0
PUTS = 3000
ROUNDS = int(os.environ.get("SUSPENSION_ROUNDS", "1"))


class Load:
    """Callers that add one, again and again."""

    def __init__(self, client: Client) -> None:
        self._machine = client.machine("inventory", First)
        self.answers: list[int] = []
        self.errors: list[Exception] = []
        self._stopped = False

    async def call(self) -> None:
        while not self._stopped:
            try:
                self.answers.append(await self._machine.within(30, First.add))
            except Exception as error:
                self.errors.append(error)

    async def progress(self, count: int) -> None:
        wanted = len(self.answers) + count

        async def reached() -> bool:
            return len(self.answers) >= wanted or bool(self.errors)

        await until(reached, SECONDS, f"{count} more answers")

    def stop(self) -> None:
        self._stopped = True


@asynccontextmanager
async def under_load(cluster: ProcessCluster) -> AsyncIterator[Load]:
    async with connect(cluster.endpoints) as client, asyncio.TaskGroup() as callers:
        load = Load(client)
        for _ in range(CALLERS):
            callers.create_task(load.call())
        try:
            await load.progress(100)
            yield load
        finally:
            load.stop()


async def with_version(node: NodeProcess, version: str, *, kill: bool = False) -> None:
    """Start it with other code."""
    if kill:
        await node.kill()
    else:
        assert await node.stop() == 0, node.log_tail()
    node.environment["CLASS_VERSION"] = version
    await node.start()
    await node.ready()


async def active_on_all(client: Client, version: int) -> None:
    async def active() -> bool:
        members = await client.machine_status("inventory")
        found = [one for member in members for one in member.machines]
        assert not any(one.suspended for one in found), members
        return len(found) == 3 and {one.version for one in found} == {version}

    await until(active, SECONDS, f"version {version} on all members")


async def values(cluster: ProcessCluster) -> set[int]:
    """What each member answers."""
    found = set()
    for node in cluster.nodes:
        async with connect(node.client_address) as client:
            found.add(await client.machine("inventory", Third).call(Third.value))
    return found


def check_order(answers: list[int]) -> None:
    """Each addition was counted once, and what a version answered comes before what a later one did."""
    numbers = sorted(answer % MARK for answer in answers)
    assert numbers == list(range(1, len(answers) + 1))
    versions = [answer // MARK for answer in sorted(answers, key=lambda answer: answer % MARK)]
    assert versions == sorted(versions)


@pytest.mark.parametrize("kill", [False, True], ids=["stopped", "killed"])
async def test_from_version_1_to_2_to_3_and_once_back_under_load(tmp_path: Path, kill: bool) -> None:
    async with ProcessCluster(tmp_path, machines=MACHINES) as cluster:
        one, two, three = cluster.nodes
        async with connect(cluster.endpoints) as client, under_load(cluster) as load:
            third = client.machine("inventory", Third)
            await with_version(one, "2", kill=kill)
            await with_version(two, "2", kill=kill)
            async with connect(one.client_address) as upgraded:
                early = upgraded.machine("inventory", Third)
                with pytest.raises(BadCall, match=r"version 2 of `inventory` is not active: .* 1"):
                    await early.call(Third.add, 1, "a note")
                with pytest.raises(BadCall, match="version 2 of `inventory` is not active"):
                    await early.call(Third.clear_notes)
            await load.progress(100)
            await with_version(one, "1", kill=kill)  # back, before the activation
            await load.progress(100)
            await with_version(two, "1", kill=kill)
            for version in ("2", "3"):
                for node in (three, one, two):
                    await with_version(node, version, kill=kill)
                    await load.progress(100)
                await active_on_all(client, int(version))
                await load.progress(200)
                assert await third.call(Third.clear_notes) == 0
        assert not load.errors
        check_order(load.answers)
        assert {answer // MARK for answer in load.answers} == {1, 2, 3}
        assert await values(cluster) == {len(load.answers)}
        await asyncio.gather(*(node.kill() for node in cluster.nodes))
        await cluster.start()
        assert await values(cluster) == {len(load.answers)}


async def test_an_activation_goes_on_whoever_is_killed_meanwhile(tmp_path: Path) -> None:
    async with ProcessCluster(tmp_path, machines=MACHINES) as cluster:
        async with connect(cluster.endpoints) as client, under_load(cluster) as load:
            for version in ("2", "3"):
                for node in cluster.nodes:
                    node.environment["CLASS_VERSION"] = version
                for _ in range(2):
                    for node in cluster.nodes:  # at whatever step it may be
                        await node.kill()
                        await node.start()
                        await asyncio.sleep(0)
                for node in cluster.nodes:
                    await node.ready()
                await active_on_all(client, int(version))
                leader = await cluster.leader()
                await leader.kill()
                await load.progress(50)
                await leader.start()
                await leader.ready()
                await active_on_all(client, int(version))
        errors = [error for error in load.errors if not isinstance(error, OutcomeUnknown | Unavailable)]
        assert not errors
        assert len(await values(cluster)) == 1


async def test_code_that_was_changed_is_not_run_until_that_is_accepted(tmp_path: Path) -> None:
    async with ProcessCluster(tmp_path, machines=MACHINES) as cluster:
        one = cluster.nodes[0]
        async with connect(cluster.endpoints) as client:
            assert await client.machine("inventory", First).call(First.add) == MARK + 1

            async def agreed() -> bool:
                """All have said what their code is, and it is in the log."""
                members = await client.machine_status("inventory")
                return all(machine.version == 1 for member in members for machine in member.machines)

            await until(agreed, SECONDS, "the beginning on all members")
            await one.stop()
            one.environment["CLASS_VERSION"] = "rewritten"
            await one.start()

            async def refused() -> str:
                if await one.http("/livez") != 200:
                    return ""
                members = await client.machine_status("inventory")
                return "".join(machine.suspended for member in members for machine in member.machines)

            reason = await until(refused, SECONDS, "the refusal")
            assert "the code of version 1 was changed (take)" in reason
            assert "--accept-changed-code" in reason
            assert await client.machine("inventory", First).call(First.add) == MARK + 2
            async with connect(one.client_address) as there:
                await there.put("key", "value")
                with pytest.raises(Unavailable, match="is suspended on this member"):
                    await there.machine("inventory", First).within(3, First.add)
            await one.stop()
            one.arguments += ["--accept-changed-code", "inventory"]
            await one.start()
            await one.ready()
            async with connect(one.client_address) as there:
                assert await there.machine("inventory", First).call(First.add) == MARK + 3


async def test_a_declared_exception_reaches_its_caller(tmp_path: Path) -> None:
    async with ProcessCluster(tmp_path, machines=MACHINES) as cluster, connect(cluster.endpoints) as client:
        machine = client.machine("inventory", First)
        with pytest.raises(OutOfStock) as caught:
            await machine.call(First.take, 2_000_000)
        assert caught.value.left == 1_000_000
        assert isinstance(caught.value.__cause__, CommandFailed)


async def latencies(client: Client, count: int) -> list[float]:
    """Puts, several at a time: how long each took."""
    loop = asyncio.get_running_loop()
    took: list[float] = []

    async def put(number: int) -> None:
        for key in range(number, count, 10):
            begun = loop.time()
            await client.put(f"key-{key}", "value")
            took.append(loop.time() - begun)

    await asyncio.gather(*(put(number) for number in range(10)))
    return sorted(took)


async def test_a_suspended_machine_does_not_touch_keys_and_its_poison_is_skipped(tmp_path: Path) -> None:
    """A command for which no member has memory: all others go on, and it is passed over by decision."""
    async with ProcessCluster(tmp_path, machines=MACHINES) as cluster, connect(cluster.endpoints) as client:
        machine = client.machine("inventory", First)
        assert await machine.call(First.add) == MARK + 1

        async def all_suspended() -> set[int]:
            members = await client.machine_status("inventory")
            found = [one for member in members for one in member.machines if one.suspended]
            return {one.index for one in found} if len(found) == 3 else set()

        async def goes_on() -> bool:
            members = await client.machine_status("inventory")
            return not any(one.suspended for member in members for one in member.machines)

        entry = 0
        p99: list[tuple[float, float]] = []
        for number in range(ROUNDS):  # by turns, for whatever else the machine has to do
            if number:
                await client.skip_command("inventory", entry)
                await until(goes_on, SECONDS, "all members to go on")
            before = await latencies(client, PUTS)
            with pytest.raises((Unavailable, OutcomeUnknown)):
                await machine.within(5, First.exhaust)
            (entry,) = await until(all_suspended, SECONDS, "the suspension on all members")
            beside = await latencies(client, PUTS)
            p99.append((1000 * before[int(PUTS * 0.99)], 1000 * beside[int(PUTS * 0.99)]))
        print("p99 in ms of puts before and beside the suspended machine:", p99)
        with pytest.raises(Unavailable, match="is suspended on this member at entry"):
            await machine.within(3, First.add)
        await asyncio.gather(*(node.kill() for node in cluster.nodes))
        for node in cluster.nodes:  # not ready: /readyz tells of the machine
            await node.start()
        assert await until(all_suspended, SECONDS, "the suspension after a restart") == {entry}
        with pytest.raises(Refused, match="stopped at entry"):
            await client.skip_command("inventory", entry + 1000)
        await client.skip_command("inventory", entry)
        await until(goes_on, SECONDS, "all members to go on")
        assert await machine.call(First.add) == MARK + 2
        await client.retire_machine("inventory")
        with pytest.raises(BadCall, match="was retired"):
            await machine.call(First.add)
        await client.host_machine("inventory")
        assert await machine.call(First.add) == MARK + 1
        assert await values(cluster) == {1}


@pytest.mark.parametrize("how", ["leave", "cancel", "interrupt", "recurse"])
async def test_what_a_command_raises_ends_no_member(tmp_path: Path, how: str) -> None:
    """Also when it is replayed after a crash, and alike on all members."""
    async with ProcessCluster(tmp_path, machines=MACHINES) as cluster, connect(cluster.endpoints) as client:
        machine = client.machine("inventory", First)
        with pytest.raises(CommandFailed) as raised:
            await machine.call(First.err, how)
        kind = {"leave": "SystemExit", "interrupt": "KeyboardInterrupt", "recurse": "RecursionError"}
        assert raised.value.type == kind.get(how, "asyncio.exceptions.CancelledError")
        before = await values(cluster)
        assert len(before) == 1
        await asyncio.gather(*(node.kill() for node in cluster.nodes))
        await cluster.start()
        assert await values(cluster) == before
        assert await machine.call(First.add) == MARK + before.pop() + 1
