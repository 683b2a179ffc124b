"""Runs the command, and a cluster for it."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from connect_kv.cli.main import main

MACHINE = '''
from connect_kv.framework.replicated import Replicated, command, query


class Counter(Replicated):
    def __init__(self) -> None:
        self.total = 0

    @command
    def increment(self, by: int = 1) -> int:
        """Add to it."""
        self.total += by
        return self.total

    @query
    def value(self) -> int:
        return self.total
'''


@dataclass
class Finished:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str
    raw: bytes = b""
    """What went to standard output, if it need not be text."""

    @property
    def json(self) -> object:
        return json.loads(self.out)


class Cli:
    """The command line, with the endpoints of a cluster in its environment."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("CONNECT_KV_")}

    def __call__(self, *words: str, stdin: str | bytes = "") -> Finished:
        """Run it in this process, which saves its start."""
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
        given = io.TextIOWrapper(
            io.BytesIO(stdin.encode() if isinstance(stdin, str) else stdin), encoding="utf-8"
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.directory)
            patch.setattr(os, "environ", self.environment)
            patch.setattr(sys, "argv", ["connect-kv", *words])
            for name, stream in (("stdin", given), ("stdout", out), ("stderr", err)):
                patch.setattr(sys, name, stream)
            with pytest.raises(SystemExit) as end:
                main()
        raw = _bytes(out)
        return Finished(int(end.value.code or 0), raw.decode(errors="replace"), _bytes(err).decode(), raw)

    def process(self, *words: str) -> Finished:
        """Run it as people do."""
        done = subprocess.run(
            [sys.executable, "-m", "connect_kv.cli.main", *words],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=self.directory,
            env=self.environment,
            check=False,
        )
        return Finished(done.returncode, done.stdout, done.stderr)


def _bytes(stream: io.TextIOWrapper) -> bytes:
    buffer = stream.buffer
    assert isinstance(buffer, io.BytesIO)
    return buffer.getvalue()


@pytest.fixture
def refusing() -> Iterator[str]:
    """An address where nobody listens, nor can while the test runs."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path)


@contextmanager
def dev(directory: Path, *options: str) -> Iterator[Cli]:
    """A cluster of one real node, started by `dev`."""
    (directory / "counter.py").write_text(MACHINE)
    cli = Cli(directory)
    process = subprocess.Popen(
        [
            *(sys.executable, "-u", "-m", "connect_kv.cli.main", "dev", "--nodes", "1", "--free-ports"),
            *("--data-dir", "data", "--machine", "counter=counter:Counter", *options),
        ],
        stdout=subprocess.PIPE,
        text=True,
        cwd=directory,
        env=cli.environment,
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if "Endpoints:" in line:
                words = line.split("Endpoints:")[1].split()
                cli.environment["CONNECT_KV_ENDPOINTS"] = words[0]
                break
        else:
            pytest.fail("the cluster did not become ready")
        yield cli
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
        assert process.returncode == 0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    """The cluster of a module."""
    with dev(tmp_path_factory.mktemp("dev")) as cli:
        yield cli
