"""A node that died under `dev` is started again from the terminal."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from connect_kv.cli.ports import choose
from tests.cli.conftest import Cli

pytestmark = pytest.mark.cluster


def test_a_node_that_died_is_started_again_by_its_name(tmp_path: Path) -> None:
    cli = Cli(tmp_path)
    process = subprocess.Popen(
        [*(sys.executable, "-u", "-m", "connect_kv.cli.main", "dev", "--nodes", "1", "--free-ports")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1,
        cwd=tmp_path, env=cli.environment,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    said: list[str] = []

    def read(pattern: str) -> re.Match[str]:
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line)
            if found := re.search(pattern, line):
                return found
        raise AssertionError("".join(said))

    try:
        first = int(read(r"n1 \| pid (\d+)")[1])
        read("The cluster is ready")
        process.stdin.write("r n1\n")
        read(f"n1 .* runs already, pid {first}")
        process.stdin.write("r n9\n")
        read("expected r and a name: n1")
        os.kill(first, signal.SIGKILL)
        read("n1 .* ended with exit code -9")
        command = shlex.split(read(r"r n1 and Enter, or elsewhere:  (.*)$")[1])
        assert command[command.index("serve") :][:3] == ["serve", "--name", "n1"]
        process.stdin.write("r n1\n")
        second = int(read(r"n1 \| pid (\d+)")[1])
        assert second != first
        read("n1 .* serving")
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert process.returncode == 0


def test_ports_that_are_taken_are_named_before_anything_is_started(tmp_path: Path) -> None:
    """Whoever has them would be greeted as the cluster."""
    cli = Cli(tmp_path)
    directory = tmp_path / "cluster"
    (first,) = choose(directory, 1, any_free=True)
    with socket.create_server(("127.0.0.1", first.client)), socket.create_server(("127.0.0.1", first.http)):
        ended = subprocess.run(
            [*(sys.executable, "-m", "connect_kv.cli.main", "dev"), "--nodes", "1", "--data-dir", directory],
            capture_output=True, text=True, cwd=tmp_path, env=cli.environment, timeout=60, check=False,
        )  # fmt: skip
    assert ended.returncode == 2
    taken = f"{first.client}, {first.http};"
    assert f"ports of 127.0.0.1 are in use, perhaps by another cluster: {taken}" in ended.stderr
    assert "is ready" not in ended.stdout + ended.stderr
    assert not (directory / "n1").exists()
