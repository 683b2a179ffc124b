"""etcd's own command line client says the same of connect-kv as of an etcd, command by command."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from connect_kv.testing.processes import ProcessCluster
from tests.etcd import ENVIRONMENT, Etcd, etcd_or_skip, find_etcdctl, skip_loudly

TIMEOUT = 20.0
COMMANDS = """\
put a 1
put a/1 one
put a/2 two
put b 2
put --prev-kv b 3
put -w json b 4
put -w fields --prev-kv b 5
put --ignore-value b
put --ignore-lease b 6
put --ignore-value missing
put nothing ""
get a
get a -w json
get a -w fields
get a -w protobuf
get a --hex
get missing
get missing -w json
get "" --from-key
get a b
get a b -w json
get a --prefix
get a --prefix --keys-only
get a --prefix --print-value-only
get a --prefix --limit 1
get a --prefix --limit 2 -w json
get "" --prefix --count-only -w fields
get "" --prefix --order DESCEND
get "" --prefix --sort-by VALUE --order ASCEND
get "" --prefix --sort-by VERSION --order DESCEND
get "" --prefix --sort-by CREATE --limit 2
get "" --prefix --sort-by MODIFY --order DESCEND --keys-only
get b --rev 5
get b --rev 1
get b --rev 100000
get b --consistency s
get b --consistency wrong
del a/1
del a/1
del a/2 --prev-kv
del -w json nothing
put c/1 1
put c/2 2
put c/3 3
put d/1 4
del c/1 c/3
del c --prefix --prev-kv
del d --from-key -w fields
compaction 4
compaction 4
compaction 100000
compaction 9 --physical
get b --rev 2
get b --rev 9
member list --help
alarm list
version
put
get
nonsense
"""
"""One a line; `""` is an empty argument. Some are meant to fail, alike."""

TXN_HOLDS = 'value("b") = "6"\nversion("b") > "1"\n\nput b 7\nget b\nput n 1\n\nput never 1\n\n'
TXN_FAILS = 'mod("b") < "1"\ncreate("zz") = "0"\n\nput never 1\n\nget b\ndel b\nget b\n\n'
TXN_ALWAYS = "\nput x 1\nget --prefix x\ndel x\n\n\n"
TXN_DUPLICATE = "\nput x 1\nput x 2\n\n\n"
TXN_NONSENSE = 'nothing("b") = "6"\n\n\n\n'


@dataclass(slots=True)
class Side:
    """One of the two that are compared."""

    program: str
    endpoints: Sequence[str]
    ids: dict[str, str] = field(default_factory=dict)
    """Lease ids, which each server chooses, by the word that stands for them."""
    _turn: int = 0

    def command(self, arguments: Sequence[str]) -> list[str]:
        self._turn += 1
        endpoint = self.endpoints[self._turn % len(self.endpoints)]
        return [self.program, "--endpoints", endpoint, *(self._known(word) for word in arguments)]

    def _known(self, word: str) -> str:
        option, equals, value = word.rpartition("=")
        return option + equals + self.ids.get(value, value)

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *self.command(arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**ENVIRONMENT, "ETCDCTL_API": "3"},
        )

    async def run(self, *arguments: str, stdin: str = "") -> tuple[int, str]:
        """Exit status and output, without what belongs to one cluster only."""
        process = await self.start(*arguments)
        async with asyncio.timeout(TIMEOUT):
            output, _ = await process.communicate(stdin.encode())
        assert process.returncode is not None
        return process.returncode, self.plain(output.decode(errors="backslashreplace"))

    async def follow(
        self, *arguments: str, lines: int, stdin: str = ""
    ) -> tuple[asyncio.subprocess.Process, asyncio.Task[str]]:
        """Start a command that does not end by itself; the task has its first lines, then interrupts it."""
        process = await self.start(*arguments)
        assert process.stdin is not None
        process.stdin.write(stdin.encode())
        await process.stdin.drain()

        async def read() -> str:
            assert process.stdout is not None
            async with asyncio.timeout(TIMEOUT):
                told = [(await process.stdout.readline()).decode() for _ in range(lines)]
                process.send_signal(signal.SIGINT)
                await process.wait()
            return self.plain("".join(told))

        return process, asyncio.create_task(read())

    def plain(self, output: str) -> str:
        """Without ids, terms, addresses and the times of log lines."""
        for word, id in self.ids.items():
            output = output.replace(id, word).replace(str(int(id, 16)), word)
        output = re.sub(r'"(cluster_id|member_id|raft_term)":\d+', r'"\1":0', output)
        output = re.sub(r'"(ClusterID|MemberID|RaftTerm)" : \d+', "", output)
        output = re.sub(r"127\.0\.0\.1:\d+", "ENDPOINT", output)
        output = re.sub(r"(ClientHeader|\\n[\x00-\x1f]?).{0,40}\x10", "", output)
        return re.sub(r'\{"level":"warn".*?"error":', '{"error":', output)


async def both(sides: Sequence[Side], *arguments: str, stdin: str = "") -> str:
    """Run it on both; they must say the same. Returns what they said."""
    results = await asyncio.gather(*(side.run(*arguments, stdin=stdin) for side in sides))
    theirs, ours = results
    if "protobuf" in arguments:
        assert theirs[0] == ours[0] == 0, arguments
        return ""
    assert ours == theirs, f"etcdctl {' '.join(arguments)}\n{theirs}\n!=\n{ours}"
    return ours[1]


async def session(sides: Sequence[Side]) -> None:
    """Every command of KV, Txn, Watch and Lease, and those that look at members."""
    for line in COMMANDS.splitlines():
        await both(sides, *("" if word == '""' else word for word in line.split()))
    await both(sides, "put", "stdin", stdin="a value\nof two lines")
    await both(sides, "get", "stdin")
    for text in (TXN_HOLDS, TXN_FAILS, TXN_ALWAYS, TXN_DUPLICATE, TXN_NONSENSE):
        await both(sides, "txn", stdin=text)
        await both(sides, "txn", "-i", stdin=text)
        await both(sides, "txn", "-w", "json", stdin=text)
    await leases(sides)
    await watches(sides)
    await members(sides)


async def leases(sides: Sequence[Side]) -> None:
    for word in ("LEASE1", "LEASE2"):
        for side in sides:
            _, told = await side.run("lease", "grant", "500")
            match = re.match(r"lease (\w+) granted with TTL\(500s\)\n$", told)
            assert match, told
            side.ids[word] = match[1]
    await both(sides, "put", "leased/1", "x", "--lease=LEASE1")
    await both(sides, "put", "leased/2", "x", "--lease=LEASE1")
    await both(sides, "put", "leased/2", "y", "--ignore-lease")
    await both(sides, "get", "leased/2", "-w", "json")
    await both(sides, "put", "leased/3", "x", "--lease=7777")
    await both(sides, "lease", "keep-alive", "--once", "LEASE1")
    await both(sides, "lease", "keep-alive", "--once", "7777")
    assert "500s" in await remaining(sides, "lease", "timetolive", "LEASE1")
    assert "leased/1" in await remaining(sides, "lease", "timetolive", "LEASE1", "--keys")
    await both(sides, "lease", "timetolive", "7777")
    listed = [sorted((await side.run("lease", "list"))[1].splitlines()) for side in sides]
    assert listed[0] == listed[1]
    assert "LEASE2" in listed[1]
    followed = [await side.follow("lease", "keep-alive", "LEASE2", lines=1) for side in sides]
    theirs, ours = await asyncio.gather(*(task for _, task in followed))
    assert theirs == ours == "lease LEASE2 keepalived with TTL(500)\n"
    await both(sides, "lease", "revoke", "LEASE1")
    await both(sides, "lease", "revoke", "LEASE1")
    await both(sides, "lease", "revoke", "LEASE2")
    await both(sides, "get", "leased", "--prefix")
    await both(sides, "lease", "grant")
    await both(sides, "lease", "grant", "9000000001")


async def remaining(sides: Sequence[Side], *arguments: str) -> str:
    """As `both`, for output that tells how much time is left."""
    told = []
    for side in sides:
        status, output = await side.run(*arguments)
        assert status == 0, output
        words = re.sub(r"remaining\(\d+s\)", "remaining(some)", output).replace("[", " ").replace("]", " ")
        told.append(sorted(words.split()))  # etcd has no order of keys
    assert told[0] == told[1]
    return " ".join(told[1])


async def watches(sides: Sequence[Side]) -> None:
    (revision,) = {
        json.loads((await side.run("get", "a", "-w", "json"))[1])["header"]["revision"] for side in sides
    }
    past = str(revision + 1)
    for arguments in (("put", "w/1", "1"), ("put", "w/2", "2"), ("put", "w/1", "3"), ("del", "w/2")):
        await both(sides, *arguments)
    await follow_both(sides, 11, "watch", "w/", "--prefix", "--rev", past)
    await follow_both(sides, 15, "watch", "w/", "--prefix", "--rev", past, "--prev-kv")
    await follow_both(sides, 6, "watch", "w/1", "--rev", past)
    await follow_both(sides, 4, "watch", "w/1", "w/3", "--rev", str(revision + 3), "-w", "simple")
    await follow_both(sides, 1, "watch", "w/", "--prefix", "--rev", past, "-w", "json")
    await follow_both(sides, 12, "watch", "-i", stdin=f"watch w/1 --rev {past}\nwatch w/2 --rev {past}\n")
    await follow_both(sides, 2, "watch", "w/1", "--rev", past, "--", "echo", "changed")
    await both(sides, "watch")
    await both(sides, "watch", "old", "--rev", "2", "--prefix")  # of a revision that was compacted


async def follow_both(sides: Sequence[Side], lines: int, *arguments: str, stdin: str = "") -> None:
    started = [await side.follow(*arguments, lines=lines, stdin=stdin) for side in sides]
    theirs, ours = await asyncio.gather(*(task for _, task in started))
    if "json" in arguments:
        assert _events(theirs) == _events(ours)
    elif "-i" in arguments:  # two watches: in either order
        assert sorted(theirs.splitlines()) == sorted(ours.splitlines())
    else:
        assert theirs == ours, f"etcdctl {' '.join(arguments)}\n{theirs}\n!=\n{ours}"


def _events(line: str) -> Any:
    return json.loads(line)["Events"]


async def members(sides: Sequence[Side]) -> None:
    """What these say is of one cluster: only the form is compared."""
    for arguments in (
        ("member", "list", "-w", "json"),
        ("endpoint", "status", "-w", "json"),
        ("endpoint", "health", "-w", "json"),
    ):
        told = []
        for side in sides:
            status, output = await side.run(*arguments)
            assert status == 0, output
            told.append(json.loads(output[output.index("[") if "endpoint" in arguments else 0 :]))
        assert _form(told[0]) <= _form(told[1]), arguments
    for arguments in (("member", "list", "-w", "table"), ("endpoint", "status", "-w", "table")):
        headings = [(await side.run(*arguments))[1].splitlines()[1].split() for side in sides]
        assert headings[0] == headings[1]


def _form(value: Any) -> set[str]:
    """The names in it, without those that are left out when they are zero."""
    if isinstance(value, list):
        return _form(value[0]) if value else set()
    if isinstance(value, dict):
        return {name + below for name, one in value.items() for below in ("", *_form(one))}
    return set()


async def test_etcdctl_says_the_same_of_etcd_and_of_three_nodes(tmp_path: Path) -> None:
    program = etcd_or_skip()
    tools = find_etcdctl()
    async with (
        Etcd(tmp_path / "etcd", program, fsync=False) as etcd,
        ProcessCluster(tmp_path / "ours") as cluster,
    ):
        for version, tool in tools.items():
            sides = [Side(tool, [etcd.client_address]), Side(tool, cluster.endpoints.split(","))]
            await session(sides)
            for side in sides:
                await side.run("del", "", "--prefix")
            print(f"etcdctl {version}: the same")
    if len(tools) < 2:
        skip_loudly(f"only etcdctl {', '.join(tools) or 'none'} is here: scripts/ci-tools installs another")
