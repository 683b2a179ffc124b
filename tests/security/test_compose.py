"""docker-compose.tls.yml: its certificates are made, and with its settings three processes are a cluster."""

from __future__ import annotations

import asyncio
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import connect_kv
from connect_kv import Tls, Unavailable
from connect_kv.testing.processes import ProcessCluster

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parent.parent.parent
COMPOSE = (ROOT / "docker-compose.tls.yml").read_text()
NAMES = ("n1", "n2", "n3")
FILES = {
    "CERT_FILE",
    "KEY_FILE",
    "TRUSTED_CA_FILE",
    "PEER_CERT_FILE",
    "PEER_KEY_FILE",
    "PEER_TRUSTED_CA_FILE",
}


def settings(name: str, certs: Path) -> dict[str, str]:
    """What the file tells that node, with its certificates where they are here."""
    common = COMPOSE[COMPOSE.index("environment: &environment") : COMPOSE.index("services:")]
    found = dict(re.findall(r"^ +(CONNECT_KV_\w+): (\S+)$", common, re.MULTILINE))
    assert {f"CONNECT_KV_{file}" for file in FILES} <= set(found)
    assert f'volumes: ["{name}:/data", "{name}-certs:/certs:ro"]' in COMPOSE
    own = {key: value.replace("/certs", str(certs / name)) for key, value in found.items()}
    del own["CONNECT_KV_INITIAL_CLUSTER"]  # ports of this machine
    return own


def made(folder: Path, *names: str) -> Path:
    """What the service `certs` makes."""
    (line,) = re.findall(r'entrypoint: \["/bin/sh", "/compose-certs", (.*)\]', COMPOSE)
    words = [word.strip(' "') for word in line.split(",")]
    assert words == ["/authority", "/out", "10001:10001", *NAMES]
    owner = f"{os.getuid()}:{os.getgid()}"
    subprocess.run(
        ["/bin/sh", ROOT / "scripts" / "compose-certs", folder / "authority", folder / "out", owner, *names],
        check=True,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        timeout=60,
    )
    return folder / "out"


async def test_three_nodes_with_these_settings_are_a_cluster(tmp_path: Path) -> None:
    certs = made(tmp_path, *NAMES)
    before = {path: path.read_bytes() for path in sorted(certs.rglob("*.*"))}
    made(tmp_path, *NAMES)
    assert {path: path.read_bytes() for path in sorted(certs.rglob("*.*"))} == before, "made once"
    assert sorted(path.name for path in (certs / "n1").iterdir()) == ["ca.pem", "node.key", "node.pem"]
    assert stat.S_IMODE((certs / "n1" / "node.key").stat().st_mode) == 0o600
    mine = certs / "client"
    client = Tls(ca=mine / "ca.pem", cert=mine / "client.pem", key=mine / "client.key")
    cluster = ProcessCluster(tmp_path, tls=client)
    for node in cluster.nodes:
        node.environment = settings(node.name, certs)
    probe = _healthcheck()
    for node in cluster.nodes:
        await node.start()
    try:
        async with cluster.client() as one:
            await one.put("k", "v", timeout=60)
            assert len(await one.members()) == 3
        async with connect_kv.connect(
            cluster.endpoints, tls=Tls(ca=certs / "n1" / "ca.pem"), timeout=1
        ) as two:
            with pytest.raises(Unavailable, match="another certificate"):
                await two.get("k")
        node = cluster.nodes[0]
        code = probe.replace("/certs", str(certs / node.name)).replace("2381", str(node.http_port))
        process = await asyncio.create_subprocess_exec(sys.executable, "-I", "-S", "-c", code)
        assert await asyncio.wait_for(process.wait(), 20) == 0
        command = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "connect_kv.cli.main", "-e", cluster.endpoints, "get", "k",
            env={**os.environ, **node.environment}, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, _ = await asyncio.wait_for(command.communicate(), 30)
        assert out == b"k\nv\n"
    finally:
        await cluster.__aexit__(None, None, None)


def _healthcheck() -> str:
    (code,) = re.findall(r'test: \["CMD", "python", "-I", "-S", "-c", "(.*)"\]', COMPOSE)
    return str(code)
