"""What a client needs, and what only members need: the former works without the latter."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BINDINGS = ("plyvel", "plyvel_next")
MEMBERS = (
    *BINDINGS,
    *("bcrypt", "jwt", "httptools", "wsproto", "prometheus_client", "yaml", "sortedcontainers"),
    *("google_crc32c", "grpc_health", "grpc_reflection", "uvloop", "click", "rich"),
)
WITHOUT = """
import sys
for name in {names!r}:
    sys.modules[name] = None  # importing it fails, as where it is not installed
"""
CLIENT = """
import asyncio
import connect_kv, connect_kv.sync, connect_kv.types

async def main():
    async with connect_kv.connect("127.0.0.1:1", timeout=0.2) as client:
        try:
            await client.put("key", "value")
        except connect_kv.Unavailable:
            print("asked")

asyncio.run(main())
"""


def run(names: tuple[str, ...], program: str, directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WITHOUT.format(names=names) + program],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_client_needs_nothing_that_only_members_need(tmp_path: Path) -> None:
    done = run(MEMBERS, CLIENT, tmp_path)
    assert done.stdout == "asked\n", done.stderr


@pytest.mark.parametrize("words", [["serve"], ["inspect", "."], ["verify", "."]])
def test_a_member_without_leveldb_says_what_to_install(words: list[str], tmp_path: Path) -> None:
    program = f"sys.argv = ['connect-kv', *{words!r}]\nfrom connect_kv.cli.main import main\nmain()\n"
    done = run(BINDINGS, program, tmp_path)
    assert done.returncode == 2, done.stderr
    assert "pip install 'connect-kv[leveldb]'" in done.stderr
    assert "Traceback" not in done.stderr
