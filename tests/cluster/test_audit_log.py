"""The audit log of a process: rotated on SIGHUP, and refused where it cannot be."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import connect_kv
from connect_kv.testing.processes import until
from tests.cluster.test_start import refused, single


async def test_sighup_begins_a_new_file_and_ends_nothing(tmp_path: Path) -> None:
    path, old = tmp_path / "audit.jsonl", tmp_path / "audit.1"
    node = single(tmp_path, "--audit-log", str(path))
    await node.start()
    try:
        await node.ready()
        async with connect_kv.connect(f"127.0.0.1:{node.client_port}") as client:
            await client.put("a", "1")

            async def said() -> bool:
                return '"key":"a"' in path.read_text()

            await until(said, 10, "the first line")
            path.rename(old)
            node.signal(signal.SIGHUP)

            async def again() -> bool:
                return path.exists()

            await until(again, 10, "a new file")
            await client.put("b", "1")
        await node.stop()
    finally:
        await node.kill()
    keys = [json.loads(line).get("what", {}).get("key") for line in path.read_text().splitlines()]
    assert "b" in keys
    assert "a" not in keys
    assert '"key":"a"' in old.read_text()


async def test_a_file_that_cannot_be_is_told_in_one_line(tmp_path: Path) -> None:
    said = await refused(single(tmp_path, "--audit-log", str(tmp_path / "none" / "audit")))
    assert "audit_log" in said
    assert "No such file or directory" in said
