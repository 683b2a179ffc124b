"""`connect-kv top` where members want certificates and ask who calls."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.cli.conftest import Cli
from tests.security.secure import PASSWORDS, SecureCluster, certify

pytestmark = pytest.mark.cluster


async def test_states_and_rates_come_over_mutual_tls_as_a_user(tmp_path: Path) -> None:
    folder = certify(tmp_path / "certs")
    async with SecureCluster(tmp_path / "nodes", folder) as cluster:
        await cluster.found_users()
        files = [
            *("--cacert", str(folder / "ca.pem"), "--cert", str(folder / "root.pem")),
            *("--key", str(folder / "root.key"), "--user", f"root:{PASSWORDS['root']}"),
        ]
        words = ["-e", cluster.endpoints, "top", "--once", "--interval", "300ms", "-o", "json", *files]
        done = await asyncio.to_thread(Cli(tmp_path).process, *words)
    assert done.code == 0, done.err
    found = done.json
    assert isinstance(found, dict)
    assert [one["role"] for one in found["members"]].count("leader") == 1
    assert all(one["rates"]["calls"] > 0 for one in found["members"]), "read from /metrics over TLS"
    assert all(abs(one["clock_difference"]) < 0.5 for one in found["members"])
