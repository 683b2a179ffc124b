"""Existing etcd clients, each in a process of its own, do not notice that they talk to connect-kv."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from connect_kv.testing.processes import NodeProcess, ProcessCluster
from tests.etcd import skip_loudly

pytestmark = pytest.mark.cluster

HERE = Path(__file__).parent
TIMEOUT = 120.0
"""Seconds, on a machine that does much else."""


def aetcd_command() -> list[str]:
    if importlib.util.find_spec("aetcd") is None:
        skip_loudly("no aetcd: it is in the extra dev")
    return [sys.executable, str(HERE / "aetcd_program.py")]


def etcd3_command() -> list[str]:
    node = shutil.which("node")
    if node is None or not (HERE / "etcd3" / "node_modules" / "etcd3").exists():
        skip_loudly("no etcd3 for Node.js: scripts/ci-tools installs it")
    return [str(node), str(HERE / "etcd3" / "program.js")]


def grpcio_command() -> list[str]:
    return [sys.executable, str(HERE / "grpcio_program.py")]


COMMANDS = {"aetcd": aetcd_command, "etcd3": etcd3_command, "grpcio": grpcio_command}


class Program:
    """A client's process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.told: list[str] = []

    @classmethod
    async def start(
        cls, client: str, endpoints: str, mode: str, environment: Mapping[str, str] | None = None
    ) -> Program:
        pipe = asyncio.subprocess.PIPE
        return cls(
            await asyncio.create_subprocess_exec(
                *COMMANDS[client](),
                endpoints,
                mode,
                stdin=pipe,
                stdout=pipe,
                stderr=asyncio.subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
            )
        )

    async def line(self, wanted: str) -> None:
        """Wait until it prints that."""
        assert self._process.stdout is not None
        async with asyncio.timeout(TIMEOUT):
            while told := (await self._process.stdout.readline()).decode():
                self.told.append(told)
                if told.strip() == wanted:
                    return
        raise AssertionError(f"it ended without {wanted}:\n{''.join(self.told)}")

    async def end(self, stdin: str = "") -> str:
        """Tell it to finish; it must end well."""
        try:
            async with asyncio.timeout(TIMEOUT):
                output, _ = await self._process.communicate(stdin.encode())
        finally:
            if self._process.returncode is None:
                self._process.kill()
        text = "".join(self.told) + output.decode(errors="replace")
        assert self._process.returncode == 0, text
        return text


@pytest.mark.parametrize("client", COMMANDS)
async def test_a_session_through_keys_transactions_watches_and_leases(client: str, tmp_path: Path) -> None:
    COMMANDS[client]()
    async with ProcessCluster(tmp_path) as cluster:
        for endpoints in endpoints_for(client, cluster.nodes):
            program = await Program.start(client, endpoints, "session")
            print(await program.end())


@pytest.mark.parametrize("client", COMMANDS)
async def test_a_session_while_the_leader_is_killed(client: str, tmp_path: Path) -> None:
    """Every write of the client is seen by its watch once and in order, and its lease stays alive."""
    COMMANDS[client]()
    async with ProcessCluster(tmp_path) as cluster:
        leader = await cluster.leader()
        others = [node for node in cluster.nodes if node is not leader]
        nodes = others[:1] if client == "aetcd" else [leader, *others]  # aetcd knows one address only
        program = await Program.start(client, ",".join(node.client_address for node in nodes), "faults")
        await program.line("READY")
        await leader.kill()
        await cluster.leader()
        await leader.start()
        await leader.ready()
        print(await program.end("finish\n"))


def endpoints_for(client: str, nodes: list[NodeProcess]) -> list[str]:
    """A follower for one that takes a single address, all for one that chooses."""
    return [nodes[-1].client_address] if client == "aetcd" else [",".join(n.client_address for n in nodes)]
