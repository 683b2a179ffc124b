"""The examples run as their texts say, three processes each, also after one was killed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from connect_kv.testing.ports import free_ports

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
PORTS = re.compile(r"\b[23]?23(?:79|80|81)\b")
SECONDS = 60.0

pytestmark = pytest.mark.cluster


class Copy:
    """An example, copied into an empty directory; its ports are replaced by free ones."""

    def __init__(self, example: str, server: str, directory: Path) -> None:
        self._directory = directory
        self._server = server
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        sources = [path for path in (EXAMPLES / example).iterdir() if path.is_file()]
        texts = {path.name: path.read_text() for path in sources}
        used = sorted({port for text in texts.values() for port in PORTS.findall(text)})
        free = dict(zip(used, map(str, free_ports(len(used))), strict=True))
        for name, text in texts.items():
            (directory / name).write_text(PORTS.sub(lambda found: free[found.group()], text))

    def start(self, name: str) -> None:
        with (self._directory / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, self._server],
                cwd=self._directory,
                env={**os.environ, "CONNECT_KV_NAME": name},
                stderr=log,
            )

    def client(self, *arguments: str) -> str:
        """What the client prints; it is run again while it cannot reach the cluster."""
        end = time.monotonic() + SECONDS
        while True:
            command = [sys.executable, "client.py", *arguments]
            done = subprocess.run(
                command, cwd=self._directory, capture_output=True, text=True, timeout=SECONDS
            )
            if done.returncode == 0:
                return done.stdout.strip()
            if time.monotonic() > end:
                logs = "\n".join(log.read_text() for log in self._directory.glob("*.log"))
                raise AssertionError(f"{done.stderr}\n{logs}")

    def stop(self) -> None:
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            process.wait(SECONDS)


@contextmanager
def running(example: str, server: str, directory: Path) -> Iterator[Copy]:
    copy = Copy(example, server, directory)
    try:
        for name in ("n1", "n2", "n3"):
            copy.start(name)
        yield copy
    finally:
        copy.stop()


Exercise = Callable[[Copy], None]


def count(copy: Copy) -> None:
    assert copy.client("5") == "the counter says 5"
    copy.processes["n1"].kill()
    assert copy.client("2") == "the counter says 7"
    copy.processes["n1"].wait(SECONDS)
    copy.start("n1")
    copy.processes["n2"].kill()
    assert copy.client("1") == "the counter says 8"


def look_up(copy: Copy) -> None:
    assert copy.client("get", "ada") == "unknown"
    assert copy.client("set", "ada", "4711") == "unknown"
    copy.processes["n3"].kill()
    assert copy.client("set", "ada", "4712") == "4711"
    copy.processes["n3"].wait(SECONDS)
    copy.start("n3")
    copy.processes["n2"].kill()
    assert copy.client("get", "ada") == "4712"


@pytest.mark.parametrize(
    ("example", "server", "exercise"),
    [
        ("counter", "server.py", count),
        ("callbacks", "server.py", look_up),
        ("callbacks", "persistent_server.py", look_up),
    ],
    ids=["counter", "callbacks", "persistent"],
)
def test_an_example_survives_the_loss_of_a_member(
    example: str, server: str, exercise: Exercise, tmp_path: Path
) -> None:
    with running(example, server, tmp_path) as copy:
        exercise(copy)
