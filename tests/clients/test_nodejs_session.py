"""The example for other languages: a session from Node.js, every put once, whatever becomes of its member."""

from __future__ import annotations

import asyncio
import re
import shutil
from pathlib import Path

import pytest

from connect_kv.testing.processes import ProcessCluster
from tests.etcd import skip_loudly

pytestmark = pytest.mark.cluster

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "nodejs"
PUTS = 30_000
TIMEOUT = 60.0


def node() -> str:
    program = shutil.which("node")
    if program is None or not (EXAMPLE / "node_modules").exists():
        skip_loudly("no Node.js, or not its packages: scripts/ci-tools installs both")
    return str(program)


async def test_every_put_happens_once_although_the_member_it_talks_to_is_killed(tmp_path: Path) -> None:
    program = node()
    async with ProcessCluster(tmp_path) as cluster:
        first = cluster.nodes[0]
        process = await asyncio.create_subprocess_exec(
            program, str(EXAMPLE / "puts.js"), cluster.endpoints, str(PUTS),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        assert process.stdout is not None
        try:
            async with asyncio.timeout(TIMEOUT):
                told = (await process.stdout.readline()).decode()
                assert told.startswith("1000 puts"), told + (await process.stdout.read()).decode()
                await first.kill()
                told += (await process.stdout.read()).decode()
                await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
        assert process.returncode == 0, told
        assert re.search(rf"^{PUTS} puts in .* node/000000 is value 0, version 1$", told, re.MULTILINE), told
        async with cluster.client() as client:
            stored = await client.get_prefix("node/", timeout=TIMEOUT)
        assert len(stored) == PUTS
        assert {one.version for one in stored} == {1}
    print(told)
