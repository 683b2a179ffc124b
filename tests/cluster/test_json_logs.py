"""With ``--log-format json`` every line is JSON: whoever collects them has one parser."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio
import pytest

from connect_kv.testing.ports import free_ports

pytestmark = pytest.mark.cluster

SERVE = (sys.executable, "-m", "connect_kv.cli.main", "serve")


@asynccontextmanager
async def serving(directory: Path, *words: str) -> AsyncIterator[tuple[list[str], list[str]]]:
    """A node's addresses (clients, HTTP) and the lines it has written, complete once it has ended."""
    client, peer, http = (f"127.0.0.1:{port}" for port in free_ports(3))
    lines: list[str] = []
    process = await asyncio.create_subprocess_exec(
        *SERVE, "--data-dir", "d", *("--listen-client", client, "--listen-peer", peer, "--listen-http", http),
        *words,
        cwd=directory, stdout=DEVNULL, stderr=PIPE, env={"PATH": "/usr/bin:/bin", "GRPC_VERBOSITY": "debug"},
    )  # fmt: skip
    assert process.stderr is not None
    try:
        while "serving" not in (line := (await process.stderr.readline()).decode()):
            assert line, lines
            lines.append(line)
        yield [client, http], lines
    finally:
        process.send_signal(signal.SIGINT)
        lines += (await process.stderr.read()).decode().splitlines()
        await process.wait()


async def use_grpc(address: str) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        for _ in range(3):
            with pytest.raises(grpc.aio.AioRpcError):
                await channel.unary_unary("/no.such/Method", bytes, bytes)(b"", timeout=5)


async def test_every_line_is_json_the_libraries_too(tmp_path: Path) -> None:
    async with serving(tmp_path, "--log-format", "json") as ([client, http], lines):
        await use_grpc(client)
        await use_grpc(http)
    found = [json.loads(line) for line in lines]
    assert all({"time", "level", "node", "message"} <= line.keys() for line in found)


async def test_why_a_node_does_not_start_is_json_too(tmp_path: Path) -> None:
    for words, says in (
        (["--listen-client", "nowhere"], "--listen-client"),
        (["--machine", "x=nosuch:C"], "nosuch"),
        (["--data-dir", "/dev/null/d"], "/dev/null"),
    ):
        process = await asyncio.create_subprocess_exec(
            *SERVE, "--log-format", "json", *words, cwd=tmp_path, stderr=PIPE
        )
        _, err = await process.communicate()
        assert process.returncode == 2
        (line,) = err.decode().splitlines()
        assert says in json.loads(line)["message"]


async def test_a_grpc_client_on_the_http_port_costs_one_line(tmp_path: Path) -> None:
    async with serving(tmp_path) as ([_, http], lines):
        await use_grpc(http)
        await use_grpc(http)
    assert not [line for line in lines if "Traceback" in line]
    (told,) = [line for line in lines if "no HTTP" in line]
    assert "WARNING" in told
    assert "gRPC: clients have another address" in told
