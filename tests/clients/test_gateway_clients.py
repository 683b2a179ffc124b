"""Clients of etcd's JSON gateway run their own suites against connect-kv, unchanged."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path

import pytest

from connect_kv.testing.processes import ProcessCluster
from tests.etcd import skip_loudly

pytestmark = pytest.mark.cluster

HERE = Path(__file__).parent / "gateway"
PYTHON = HERE / ".venv" / "bin" / "python"
TIMEOUT = 400.0


async def run(*arguments: str, port: int) -> str:
    """What it prints."""
    url = f"http://127.0.0.1:{port}"
    process = await asyncio.create_subprocess_exec(
        str(PYTHON),
        *arguments,
        env={
            **os.environ,
            "TOOZ_TEST_HTTP_URL": url,
            "TOOZ_TEST_ETCD_PORT": str(port),
            "TOOZ_TEST_URL": f"etcd3+{url}",
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(TIMEOUT):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    text = output.decode(errors="replace")
    assert process.returncode == 0, text[-5000:]
    return text


def installed() -> None:
    if not PYTHON.exists():
        skip_loudly("no clients of the JSON gateway: scripts/ci-tools installs them")


@pytest.mark.parametrize(
    ("suite", "least"), [("etcd3gw.tests.test_etcd3gw", 23), ("tooz.tests.test_coordination", 80)]
)
async def test_its_own_suite_passes(suite: str, least: int, tmp_path: Path) -> None:
    installed()
    async with ProcessCluster(tmp_path) as cluster:
        text = await run("-m", "testtools.run", suite, port=cluster.nodes[-1].client_port)
    ran = re.search(r"^Ran (\d+) tests", text, re.MULTILINE)
    assert ran is not None
    assert int(ran[1]) >= least
    skipped = len(re.findall(r"^skipped|\bSKIP\b|etcd3 is not available", text, re.MULTILINE))
    assert not skipped, "it did not find the server"


async def test_a_session_of_async_etcd3gw(tmp_path: Path) -> None:
    installed()
    async with ProcessCluster(tmp_path) as cluster:
        port = cluster.nodes[0].client_port
        assert (await run(str(HERE / "async_program.py"), str(port), port=port)).endswith("OK\n")
