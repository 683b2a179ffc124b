"""The commands of the README's first screen."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import connect_kv
from connect_kv.testing.processes import until

ROOT = Path(__file__).parent.parent.parent


async def test_run_check_passes() -> None:
    """What `scripts/run --check` runs, in this environment."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "scripts/check.py"),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'examples'}"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await asyncio.wait_for(process.communicate(), 120)
    lines = said.decode().splitlines()
    assert process.returncode == 0, said.decode()
    assert lines[-1] == "OK"
    assert any("was killed" in line for line in lines)


async def test_dev_runs_a_cluster_until_it_is_told_to_stop(tmp_path: Path) -> None:
    """It says where its nodes are; what is written through one is read through another."""
    output = tmp_path / "output"
    with output.open("wb") as target:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-u", "-m", "connect_kv.cli.main", "dev", "--nodes", "3", "--free-ports"),
            stdout=target,
            stderr=target,
        )

    async def endpoints() -> str | None:
        assert process.returncode is None, output.read_text()
        found = [line for line in output.read_text().splitlines() if "Endpoints: " in line]
        return found[0].partition("Endpoints: ")[2] if found else None

    try:
        addresses = (await until(endpoints, 60, "the cluster to be ready")).split(",")
        assert len(addresses) == 3
        async with connect_kv.connect(addresses[0]) as one, connect_kv.connect(addresses[2]) as other:
            await one.put("from", "one")
            found = await other.get("from")
            assert found is not None
            assert found.value == b"one"
    finally:
        if process.returncode is None:
            process.terminate()
        code = await asyncio.wait_for(process.wait(), 30)
    assert code == 0, output.read_text()
