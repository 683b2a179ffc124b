"""etcd's own command line client administers connect-kv as it does an etcd: members, backups, locks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from connect_kv.testing.ports import free_ports
from connect_kv.testing.processes import ProcessCluster
from tests.cluster.test_etcdctl import Side
from tests.etcd import Etcd, etcd_or_skip, find_etcdctl

UNKNOWN_ID = "badcafe"


def shape(output: str) -> str:
    """Without ids, sizes and hashes, and without the codes where etcd sends UNKNOWN (docs/divergence.md)."""
    output = re.sub(r"code = \w+", "code", output)
    output = re.sub(r"\b[0-9a-f]{12,16}\b", "ID", output)
    output = re.sub(r" +", " ", output)  # an id that begins with zeros is padded
    return re.sub(r"\b\d[\d.]* ?[kMG]?B\b|took .*|\d+\.\d+ms", "SIZE", output)


async def both(sides: Sequence[Side], *arguments: str) -> str:
    """Run it on both; they must say the same. Returns what ours said."""
    (their_status, theirs), (our_status, ours) = [await side.run(*arguments) for side in sides]
    assert (our_status, shape(ours)) == (their_status, shape(theirs)), f"etcdctl {' '.join(arguments)}"
    return ours


async def session(sides: Sequence[Side], directory: Path) -> None:
    await members(sides)
    await maintenance(sides, directory)
    await locks(sides)


async def members(sides: Sequence[Side]) -> None:
    for address in ("http://127.0.0.1", "nonsense", "http://127.0.0.1:1/path"):
        statuses = [(await side.run("member", "add", "new", f"--peer-urls={address}"))[0] for side in sides]
        assert statuses[0] == statuses[1] != 0, address
    for side in sides:
        _, listed = await side.run("member", "list", "-w", "simple")
        side.ids["OWN"] = listed.split(",")[0]
    for arguments in (
        ("member", "remove", UNKNOWN_ID),
        ("member", "promote", UNKNOWN_ID),
        ("member", "update", UNKNOWN_ID, "--peer-urls=http://127.0.0.1:1"),
        ("member", "promote", "OWN"),
        ("member", "remove", "OWN"),
        ("move-leader", UNKNOWN_ID),
    ):
        await both(sides, *arguments)
    (port,) = free_ports(1)
    learner = f"--peer-urls=http://127.0.0.1:{port}"
    for side in sides:
        status, told = await side.run("member", "add", "new", "--learner", learner)
        assert status == 0, told
        found = re.match(r"Member\s+(\w+) added to cluster", told)
        assert found, told
        assert 'ETCD_INITIAL_CLUSTER_STATE="existing"' in told
        side.ids["NEW"] = found[1]
    await both(sides, "member", "add", "more", "--learner", "--peer-urls=http://127.0.0.1:2")
    await both(sides, "member", "promote", "NEW")
    await both(sides, "member", "update", "NEW", "--peer-urls=http://127.0.0.1:3")
    await both(sides, "member", "remove", "NEW")
    await both(sides, "member", "remove", "NEW")


async def maintenance(sides: Sequence[Side], directory: Path) -> None:
    await both(sides, "alarm", "list")
    await both(sides, "alarm", "disarm")
    await both(sides, "put", "k", "v")
    for side in sides:
        status, told = await side.run("defrag")
        assert status == 0, told
        file = directory / f"{Path(side.program).parent.name}-{id(side)}"
        status, told = await side.run("snapshot", "save", str(file))
        assert status == 0, told
        assert file.stat().st_size % 512 == 32


async def locks(sides: Sequence[Side]) -> None:
    await both(sides, "lock", "name", "echo", "held")
    await both(sides, "get", "name", "--prefix")


async def test_etcdctl_administers_both_alike(tmp_path: Path) -> None:
    program = etcd_or_skip()
    async with (
        Etcd(tmp_path / "etcd", program, fsync=False) as etcd,
        ProcessCluster(tmp_path / "ours", 1) as cluster,
    ):
        for version, tool in find_etcdctl().items():
            sides = [Side(tool, [etcd.client_address]), Side(tool, cluster.endpoints.split(","))]
            await session(sides, tmp_path)
            print(f"etcdctl {version}: the same")
