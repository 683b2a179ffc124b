"""The counter of the README, by its text alone."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from pathlib import Path

from connect_kv.testing.ports import free_ports
from connect_kv.testing.processes import until

ROOT = Path(__file__).parent.parent.parent
FILE = re.compile(r"^`([\w.]+)`[^`\n]*:\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
START = re.compile(r"^CONNECT_KV_NAME=.* python counter\.py$", re.MULTILINE)
CLIENT = re.compile(r"^Then `(python client\.py)`", re.MULTILINE)
PORT = re.compile(r"\b[23]?23(?:79|80|81)\b")


def with_free_ports(text: str) -> str:
    """The same text with other ports: the usual ones may be in use on this machine."""
    used = sorted(set(PORT.findall(text)))
    free = dict(zip(used, map(str, free_ports(len(used))), strict=True))
    return PORT.sub(lambda found: free[found.group()], text)


async def shell(command: str, directory: Path, output: Path) -> asyncio.subprocess.Process:
    """Run a line as in a terminal where this Python comes first and the package is installed."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with output.open("ab") as target:
        return await asyncio.create_subprocess_shell(
            f"exec env {command}",
            cwd=directory,
            env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)},
            stdout=target,
            stderr=target,
        )


async def count(command: str, directory: Path) -> str | None:
    """What one run of the client says; None if it could not reach the cluster."""
    output = directory / "client.out"
    output.unlink(missing_ok=True)
    process = await shell(command, directory, output)
    code = await asyncio.wait_for(process.wait(), 60)
    return output.read_text().strip() if code == 0 else None


async def test_the_counter_of_the_readme_works_and_survives_a_kill(tmp_path: Path) -> None:
    text = with_free_ports((ROOT / "README.md").read_text())
    files = dict(FILE.findall(text))
    assert {"counter.py", "client.py", "Connect.toml"} <= files.keys()
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    starts, (client,) = START.findall(text), CLIENT.findall(text)
    assert len(starts) == 3
    nodes = [await shell(line, tmp_path, tmp_path / f"node{n}.log") for n, line in enumerate(starts)]
    try:
        # A count that failed after all was one the cluster could not have taken: it did not serve yet.
        assert await until(lambda: count(client, tmp_path), 60, "the counter") == "the counter says 5"
        assert await count(client, tmp_path) == "the counter says 10"
        nodes[0].send_signal(signal.SIGKILL)
        await nodes[0].wait()
        assert await count(client, tmp_path) == "the counter says 15"
        for node in nodes[1:]:
            assert node.returncode is None
    finally:
        for node in nodes:
            if node.returncode is None:
                node.terminate()
        await asyncio.wait_for(asyncio.gather(*(node.wait() for node in nodes)), 30)
