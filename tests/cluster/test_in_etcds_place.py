"""`connect-kv etcd`: three members by etcd's own flags, and what a supervisor is told."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path

import connect_kv
from connect_kv.testing.ports import free_ports

START = (sys.executable, "-m", "connect_kv.cli.main", "etcd")
ENVIRONMENT = {key: value for key, value in os.environ.items() if not key.startswith("ETCD")}


async def start(log: Path, *arguments: str, **environment: str) -> asyncio.subprocess.Process:
    with log.open("wb") as file:
        return await asyncio.create_subprocess_exec(
            *START, *arguments, stdout=file, stderr=file, cwd=log.parent, env={**ENVIRONMENT, **environment}
        )


async def test_three_members_by_flags_and_by_environment(tmp_path: Path) -> None:
    """Each listens at two addresses; one is told by flags, one by its environment, one by a file."""
    ports = free_ports(9)
    client, other, peer = ports[:3], ports[3:6], ports[6:]
    cluster = ",".join(f"m{number}=http://127.0.0.1:{port}" for number, port in enumerate(peer))
    told = [
        {
            "name": f"m{number}",
            "listen-client-urls": f"http://127.0.0.1:{client[number]},http://localhost:{other[number]}",
            "advertise-client-urls": f"http://127.0.0.1:{client[number]}",
            "listen-peer-urls": f"http://127.0.0.1:{peer[number]}",
            "initial-advertise-peer-urls": f"http://127.0.0.1:{peer[number]}",
            "initial-cluster": cluster,
            "initial-cluster-token": "tkn",
            "wal-dir": "/elsewhere",
        }
        for number in range(3)
    ]
    file = tmp_path / "etcd.yaml"
    file.write_text("".join(f"{name}: {value}\n" for name, value in told[2].items()))
    variables = {f"ETCD_{name.upper().replace('-', '_')}": value for name, value in told[1].items()}
    logs = [tmp_path / f"m{number}.log" for number in range(3)]
    members = [
        await start(logs[0], *(f"--{name}={value}" for name, value in told[0].items())),
        await start(logs[1], **variables),
        await start(logs[2], "--config-file", str(file)),
    ]
    try:
        for port in (client[0], other[1], client[2]):
            async with connect_kv.connect(f"localhost:{port}", timeout=30) as found:
                await found.put(f"k{port}", "v")
                assert len(await found.members()) == 3
        for log in logs:
            text = log.read_text()
            assert text.count("--wal-dir: has no meaning here: all lies in the data directory") == 1
            assert "ready to serve client requests" in text
        assert (tmp_path / "m0.etcd" / "log").is_dir()
    finally:
        for member in members:
            member.send_signal(signal.SIGTERM)
        codes = [await asyncio.wait_for(member.wait(), 30) for member in members]
    assert codes == [0, 0, 0]


async def test_systemd_is_told_when_it_serves_and_when_it_stops(tmp_path: Path) -> None:
    client, peer = free_ports(2)
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(str(path))
        told.setblocking(False)
        loop = asyncio.get_running_loop()
        member = await start(
            tmp_path / "log",
            f"--listen-client-urls=http://127.0.0.1:{client}",
            f"--advertise-client-urls=http://127.0.0.1:{client}",
            f"--listen-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
            NOTIFY_SOCKET=str(path),
        )  # fmt: skip
        try:
            async with asyncio.timeout(30):
                assert await loop.sock_recv(told, 100) == b"READY=1"
            async with connect_kv.connect(f"127.0.0.1:{client}", timeout=20) as found:
                await found.put("k", "v")
            member.terminate()
            async with asyncio.timeout(30):
                assert await loop.sock_recv(told, 100) == b"STOPPING=1"
                assert await member.wait() == 0
        finally:
            if member.returncode is None:
                member.kill()
                await member.wait()


async def test_a_refused_flag_and_a_directory_of_an_etcd_end_it_with_2(tmp_path: Path) -> None:
    (tmp_path / "old" / "member").mkdir(parents=True)
    for arguments, said in (
        (["--force-new-cluster"], "--force-new-cluster=true: make a backup"),
        (["--data-dir", "old"], "is the data directory of an etcd: move in with"),
    ):
        member = await start(tmp_path / "log", *arguments)
        assert await asyncio.wait_for(member.wait(), 30) == 2
        assert said in (tmp_path / "log").read_text()
    assert os.listdir(tmp_path / "old") == ["member"]
