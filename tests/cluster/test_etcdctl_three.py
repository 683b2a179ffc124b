"""Three members each: what etcdctl tells of them, moves among them, and is refused for their safety."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from connect_kv.testing.ports import free_ports
from connect_kv.testing.processes import ProcessCluster, until
from tests.cluster.test_etcdctl import TIMEOUT, Side
from tests.cluster.test_etcdctl_control import UNKNOWN_ID, both, shape
from tests.etcd import etcd_cluster, etcd_or_skip, find_etcdctl, skip_loudly

VERSIONS = ("3.4", "3.5")
HEALTHY = "Peer URLs already exists"
"""What a change is answered that is refused for itself, not for the cluster's state."""


def form(output: str) -> list[str]:
    """Without names, numbers, times, sizes and the order of members: the words, line by line."""
    output = re.sub(r"\bFOLLOWER\d\b", "FOLLOWER", re.sub(r"\b[mn]\d\b", "NAME", output))
    output = re.sub(r"\d+(\.\d+)*( [kM]?B\b|[mu]?s\b)?", "N", output)
    return sorted(re.sub(r"[ +-]+", " ", line).strip() for line in re.split(r"\n|,(?={)", output))


class Trio:
    """One side's three members: who leads, where each is reached, and how one is killed."""

    def __init__(self, side: Side, kill: dict[str, Any]) -> None:
        self.side = side
        self.kill_at = kill
        """What stops the member with that client address at once."""
        self.described: dict[str, dict[str, Any]] = {}

    async def look(self) -> None:
        """Name the members LEADER, FOLLOWER1 and FOLLOWER2 by what they do now."""
        (status, *_) = await self._json("endpoint", "status", "-w", "json")
        members = await until(self._started, 30, "all members to have said where clients reach them")
        leader = status["Status"]["leader"]
        others = iter(("FOLLOWER1", "FOLLOWER2"))
        for member in members:
            word = "LEADER" if member["ID"] == leader else next(others)
            self.side.ids[word] = f"{member['ID']:x}"
            self.described[word] = member

    async def _started(self) -> list[dict[str, Any]]:
        members: list[dict[str, Any]] = (await self._json("member", "list", "-w", "json"))["members"]
        return members if all("clientURLs" in member for member in members) else []

    async def _json(self, *arguments: str) -> Any:
        process = await self.side.start(*arguments)
        out, _ = await process.communicate()
        text = out.decode()
        return json.loads(text[min(at for at in (text.find("["), text.find("{")) if at >= 0) :])

    def peer_url(self, word: str) -> str:
        return f"--peer-urls={self.described[word]['peerURLs'][0]}"

    def address(self, word: str) -> str:
        return str(self.described[word]["clientURLs"][0]).removeprefix("http://")

    def leave_out(self, word: str) -> None:
        """Ask the others from now on."""
        left = [one for one in self.side.endpoints[0].split(",") if one != self.address(word)]
        self.side.endpoints = [",".join(left)]

    async def kill(self, word: str) -> None:
        await self.kill_at[self.address(word)].kill()
        self.leave_out(word)


@asynccontextmanager
async def trios(directory: Path, tool: str) -> AsyncIterator[tuple[Trio, Trio]]:
    """A real etcd of three and ours, both well."""
    etcds = etcd_cluster(directory / "etcd", etcd_or_skip())
    try:
        for one in etcds:
            one.fsync = False
            await one.start()
        async with ProcessCluster(directory / "ours") as cluster:
            for one in etcds:
                await one.ready()
            theirs = Trio(
                Side(tool, [",".join(one.client_address for one in etcds)]),
                {one.client_address: one for one in etcds},
            )
            ours = Trio(
                Side(tool, [cluster.endpoints]), {node.client_address: node for node in cluster.nodes}
            )
            for trio in (theirs, ours):
                await trio.look()
            yield theirs, ours
    finally:
        for one in etcds:
            await one.kill()


def tool_of(version: str) -> str:
    tool = find_etcdctl().get(version)
    if tool is None:
        skip_loudly(f"no etcdctl {version}: scripts/ci-tools installs it")
    assert tool is not None
    return tool


async def alike(sides: Sequence[Side], *arguments: str) -> None:
    """They say the same but for numbers and order."""
    (their_status, theirs), (our_status, ours) = [await side.run(*arguments) for side in sides]
    assert their_status == our_status, f"{arguments}: {theirs} {ours}"
    if "json" in arguments:
        names = [sorted(set(re.findall(r'"(\w+)":', told))) for told in (theirs, ours)]
        assert set(names[0]) <= set(names[1]), arguments
        return
    assert form(ours) == form(theirs), f"etcdctl {' '.join(arguments)}\n{theirs}\n!=\n{ours}"


@pytest.mark.parametrize("version", VERSIONS)
async def test_what_is_told_of_members_and_leadership_moved_among_them(tmp_path: Path, version: str) -> None:
    async with trios(tmp_path, tool_of(version)) as pair:
        sides = [trio.side for trio in pair]
        await both(sides, "put", "k", "v")
        for command in ("status", "health", "hashkv"):
            await alike(sides, "endpoint", command)
            await alike(sides, "endpoint", command, "--cluster")
            for output in ("table", "fields", "json"):
                if (command, output) != ("health", "fields"):
                    await alike(sides, "endpoint", command, "--cluster", "-w", output)
        await alike(sides, "endpoint", "hashkv", "--rev", "2")
        await both(sides, "endpoint", "hashkv", "--rev", "100")
        await alike(sides, "member", "list")
        for arguments in ((), ("zz",), (UNKNOWN_ID,), ("LEADER",)):
            await both(sides, "move-leader", *arguments)
        for trio in pair:
            every = trio.side.endpoints
            trio.side.endpoints = [trio.address("FOLLOWER1")]
            status, told = await trio.side.run("move-leader", "FOLLOWER2")
            assert (status, told) == (128, "Error: no leader endpoint given at [ENDPOINT]\n")
            trio.side.endpoints = every
        told = await both(sides, "move-leader", "FOLLOWER1")
        assert told == "Leadership transferred from LEADER to FOLLOWER1\n"
        for trio in pair:
            await trio.look()
        await both(sides, "move-leader", "-w", "json", "FOLLOWER2")
        await elections(sides)
        await locks(sides)


async def elections(sides: Sequence[Side]) -> None:
    """One leads, another waits for it, a third looks on."""
    for side in sides:
        first = await side.start("elect", "e", "one")
        assert await told(first, 2) == "KEY\none\n"
        observer = await side.start("elect", "-l", "e")
        assert await told(observer, 2) == "KEY\none\n"
        second = await side.start("elect", "e", "two")
        await until(lambda: keys_under(side, "e", 2), 30, "the second to wait")  # noqa: B023
        await interrupt(first)
        assert await told(second, 2) == await told(observer, 2) == "KEY\ntwo\n"
        await interrupt(observer)
        await interrupt(second)
        await until(lambda: keys_under(side, "e", 0), 30, "both to be gone")  # noqa: B023
    await both(sides, "elect")
    await both(sides, "elect", "-l")


async def locks(sides: Sequence[Side]) -> None:
    """Held by one, had by the next once that one lets go; a command's own status is handed on."""
    for side in sides:
        holder = await side.start("lock", "m")
        assert await told(holder, 1) == "KEY\n"
        following = await side.start("lock", "m", "echo", "next")
        await until(lambda: keys_under(side, "m", 2), 30, "the next to wait")  # noqa: B023
        await interrupt(holder)
        assert await told(following, 1) == "next\n"
        assert await following.wait() == 0
        await until(lambda: keys_under(side, "m", 0), 30, "the lock to be free")  # noqa: B023
    await both(sides, "lock", "m", "--ttl", "5", "sh", "-c", "exit 3")
    await both(sides, "lock")


async def told(process: asyncio.subprocess.Process, lines: int) -> str:
    """The next lines it says, with KEY for its own place in the queue."""
    assert process.stdout is not None
    async with asyncio.timeout(TIMEOUT):
        said = [(await process.stdout.readline()).decode() for _ in range(lines)]
    return re.sub(r"\b[em]/[0-9a-f]+", "KEY", "".join(said))


async def interrupt(process: asyncio.subprocess.Process) -> None:
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(TIMEOUT):
        await process.wait()


async def keys_under(side: Side, name: str, count: int) -> bool:
    _, found = await side.run("get", f"{name}/", "--prefix", "--keys-only")
    return len(found.split()) == count


@pytest.mark.parametrize("version", VERSIONS)
async def test_changes_that_could_harm_the_cluster_are_refused_alike(tmp_path: Path, version: str) -> None:
    async with trios(tmp_path, tool_of(version)) as pair:
        for trio in pair:
            await refused_for(trio, HEALTHY)
        await with_all_well(pair)
        await with_one_dead(pair)


async def refused_for(trio: Trio, reason: str) -> None:
    """Until the cluster is in that state: etcd wants to have been connected for five seconds."""

    async def refused() -> bool:
        _, told = await trio.side.run("member", "add", "x", trio.peer_url("FOLLOWER1"))
        return reason in told

    await until(refused, 60, reason)


async def at_url(pair: Sequence[Trio], word: str, *arguments: str) -> str:
    """As `both`, with that member's peer address."""
    results = [await trio.side.run(*arguments, trio.peer_url(word)) for trio in pair]
    assert results[0][0] == results[1][0]
    assert shape(results[0][1]) == shape(results[1][1]), arguments
    return results[1][1]


async def added(pair: Sequence[Trio], word: str, *arguments: str) -> None:
    """The same on both, and the id is known by that word."""
    (port,) = free_ports(1)
    for trio in pair:
        status, told = await trio.side.run(
            "member", "add", *arguments, f"--peer-urls=http://127.0.0.1:{port}"
        )
        assert status == 0, told
        found = re.match(r"Member\s+(\w+) added to cluster", told)
        assert found, told
        trio.side.ids[word] = found[1]


async def with_all_well(pair: Sequence[Trio]) -> None:
    sides = [trio.side for trio in pair]
    assert HEALTHY in await at_url(pair, "FOLLOWER2", "member", "add", "x")
    assert HEALTHY in await at_url(pair, "FOLLOWER2", "member", "add", "x", "--learner")
    assert HEALTHY in await at_url(pair, "FOLLOWER2", "member", "update", "FOLLOWER1")
    assert "updated" in await at_url(pair, "FOLLOWER1", "member", "update", "FOLLOWER1")
    assert "can only promote a learner member" in await both(sides, "member", "promote", "LEADER")
    await added(pair, "LEARNER", "l", "--learner")
    more = ("member", "add", "m", "--learner", "--peer-urls=http://127.0.0.1:1")
    assert "too many learner members" in await both(sides, *more)
    assert "in sync with leader" in await both(sides, "member", "promote", "LEARNER")
    assert "bad leader transferee" in await both(sides, "move-leader", "LEARNER")
    assert HEALTHY in await at_url(pair, "FOLLOWER1", "member", "update", "LEARNER")
    assert "removed" in await both(sides, "member", "remove", "LEARNER")
    assert "member not found" in await both(sides, "member", "remove", "LEARNER")
    await added(pair, "NEVER", "n")
    assert "removed" in await both(sides, "member", "remove", "NEVER")
    assert "member not found" in await both(sides, "member", "remove", "NEVER")
    assert "member not found" in await at_url(pair, "FOLLOWER1", "member", "update", "NEVER")


async def with_one_dead(pair: Sequence[Trio]) -> None:
    sides = [trio.side for trio in pair]
    for trio in pair:
        await trio.kill("FOLLOWER2")
        await refused_for(trio, "unhealthy cluster")
    for arguments in (
        ("add", "x", "--peer-urls=http://127.0.0.1:1"),
        ("remove", "FOLLOWER1"),
        ("remove", "LEADER"),
    ):
        assert "unhealthy cluster" in await both(sides, "member", *arguments)
    assert HEALTHY in await at_url(pair, "FOLLOWER1", "member", "update", "FOLLOWER2")
    moved = ("update", "FOLLOWER2", "--peer-urls=http://127.0.0.1:1")
    assert "updated" in await both(sides, "member", *moved)
    assert "can only promote a learner" in await both(sides, "member", "promote", "FOLLOWER2")
    assert "removed" in await both(sides, "member", "remove", "FOLLOWER2")
    assert "member not found" in await both(sides, "member", "remove", "FOLLOWER2")
    # Two are left; the one that leads is removed, and then the last one stays.
    assert "removed" in await both(sides, "member", "remove", "LEADER")
    for trio in pair:
        trio.leave_out("LEADER")
    assert "not enough started members" in await both(sides, "member", "remove", "FOLLOWER1")
    # An etcd needs longer to go on alone than its client waits.
    assert (await sides[1].run("put", "k", "v"))[0] == 0
