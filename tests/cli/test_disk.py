"""inspect and verify: a stopped node's data directory."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from connect_kv.client.client import connect
from connect_kv.config import ServerConfig
from connect_kv.server.composition import KvServer
from tests.cli.conftest import Cli


@pytest.fixture
def stopped(tmp_path: Path) -> str:
    """The data directory of a node that has run."""

    async def run() -> None:
        config = ServerConfig(
            data_dir=tmp_path / "data",
            listen_client="127.0.0.1:0",
            listen_peer="127.0.0.1:1",
            listen_http="",
            heartbeat_ms=20,
            election_ms=100,
            tick_ms=20,
        )
        server = KvServer(config)
        await server.start()
        async with connect(server.client_address, session=False) as client:
            await client.put("a", "1")
        await server.stop()

    asyncio.run(run())
    return str(tmp_path / "data")


def test_inspect_shows_identity_log_and_state(cli: Cli, stopped: str) -> None:
    found = cli("inspect", stopped, "-o", "json", "--entries").json
    assert isinstance(found, dict)
    assert found["identity"]["name"] == "default"
    assert found["hard_state"]["term"] >= 1
    assert any(entry["kind"] == "command" for entry in found["entries"])
    assert [state["current"] for state in found["states"]] == [True]
    table = cli("inspect", stopped, "--entries").out
    assert "last entry" in table
    assert "command" in table
    assert "voter" in cli("inspect", stopped, "-o", "simple").out
    assert isinstance(cli("-o", "json", "inspect", stopped).json, dict)
    assert isinstance(cli("-o", "json", "verify", stopped).json, list)


def test_verify_finds_a_sound_directory_sound(cli: Cli, stopped: str) -> None:
    done = cli("verify", stopped)
    assert done.code == 0
    assert done.out.count("ok") == 2


def test_verify_finds_damage(cli: Cli, stopped: str) -> None:
    for file in Path(stopped, "log").glob("*.log"):
        data = bytearray(file.read_bytes())
        data[len(data) // 3] ^= 0xFF
        file.write_bytes(data)
    done = cli("verify", stopped, "-o", "json")
    assert done.code == 1
    assert isinstance(done.json, list)
    assert any(report["problems"] for report in done.json)
