"""A program that is only a client loads only a client, and keeps its own gRPC settings."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

SERVER = {
    "cli", "frontend", "interfaces", "kv", "metrics", "node", "raft", "server", "services", "statemachine",
    "storage", "testing", "transport",
}  # fmt: skip
"""Parts of the package that only a member runs, and tools."""

PROGRAM = """
import json, os, sys

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name in ("plyvel", "aiohttp", "prometheus_client", "sortedcontainers"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NotInstalled())
before = dict(os.environ)
%s
assert dict(os.environ) == before, "the environment was changed"
print(json.dumps(list(sys.modules)))
"""

USE = """
import asyncio
import connect_kv
from connect_kv import Cluster, Replicated, command, query

class Counter(Replicated):
    def __init__(self) -> None:
        self.total = 0

    @command
    def add(self) -> int:
        return 1

async def main():
    async with connect_kv.connect("127.0.0.1:1", timeout=0.2) as client:
        client.machine("counter", Counter)
        try:
            await client.get("key")
        except connect_kv.Unavailable:
            pass

Cluster(members=[{"name": "n1"}])
asyncio.run(main())
"""


def loaded(program: str) -> set[str]:
    """The modules it loads, in a process where what only a server needs is not installed."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM % program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


@pytest.mark.parametrize("program", ["import connect_kv", "import connect_kv.sync", USE])
def test_a_client_loads_no_part_of_a_server(program: str) -> None:
    parts = {name.split(".")[1] for name in loaded(program) if name.startswith("connect_kv.")}
    assert parts.isdisjoint(SERVER)
    assert "client" in parts


def test_importing_takes_less_than_half_of_what_it_took() -> None:
    """Counted in modules, which no load of the machine changes: 569 with the server, on Python 3.11."""
    found = loaded("import connect_kv")
    assert len(found) < 569 / 2
    assert found.isdisjoint({"grpc", "uvloop", "rich"}), "loaded when first used"
