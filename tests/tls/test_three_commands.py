"""From nothing to a cluster over TLS by the commands of docs/security.md, the installation left out."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import signal
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parent.parent.parent / "docs" / "security.md"


@pytest.mark.cluster
async def test_the_commands_of_the_page_make_a_cluster_over_tls(tmp_path: Path) -> None:
    block = re.search(r"```\n(.*?)```", PAGE.read_text(), re.S)
    assert block is not None
    install, dev, status = block[1].strip().splitlines()
    assert install == "pip install connect-kv"
    program = [sys.executable, "-m", "connect_kv.cli.main"]
    environment = {**os.environ, "PYTHONPATH": str(PAGE.parent.parent)}
    folder = "connect-kv.dev"
    cluster = await asyncio.create_subprocess_exec(
        *program,
        *shlex.split(dev)[1:],
        *("--free-ports", "--data-dir", folder),
        cwd=tmp_path,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert cluster.stdout is not None
    said = ""
    try:
        async with asyncio.timeout(90):
            while (found := re.search(r"Endpoints: (\S+)", said)) is None:
                line = await cluster.stdout.readline()
                assert line, said
                said += line.decode()
        for words, code in ((shlex.split(status)[1:], 0), (["status"], 1)):
            ran = await asyncio.create_subprocess_exec(
                *program,
                *("--endpoints", found[1], "--timeout", "5"),
                *words,
                cwd=tmp_path,
                env=environment,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            output = (await ran.communicate())[0].decode()
            assert (ran.returncode == 0) is (code == 0), output
            if code == 0:
                assert all(name in output for name in ("n1", "n2", "n3")), output
                assert "leader" in output
    finally:
        cluster.send_signal(signal.SIGINT)
        await cluster.communicate()
