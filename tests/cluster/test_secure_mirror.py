"""A mirror between an etcd and ours where both speak TLS, want certificates, and have users: both ways."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import connect_kv
from connect_kv import Tls
from connect_kv.client.client import Client
from connect_kv.client.etcd import connect_etcd
from connect_kv.testing.ports import free_ports
from connect_kv.testing.processes import until
from tests import moving
from tests.cluster.test_backup import command
from tests.etcd import ENVIRONMENT, etcd_or_skip
from tests.security.secure import PASSWORDS, SecureCluster, certify, tls_of

ROOT = f"root:{PASSWORDS['root']}"


@asynccontextmanager
async def secure_etcd(directory: Path, folder: Path) -> AsyncIterator[str]:
    """The address of one that demands certificates; its users are those of the cluster."""
    client, peer = free_ports(2)
    address = f"127.0.0.1:{client}"
    cert, key, ca = (str(folder / name) for name in ("n1.pem", "n1.key", "ca.pem"))
    with directory.with_suffix(".log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            etcd_or_skip(), "--data-dir", str(directory / "data"), "--unsafe-no-fsync",
            "--listen-client-urls", f"https://{address}", "--advertise-client-urls", f"https://{address}",
            "--listen-peer-urls", f"http://127.0.0.1:{peer}",
            "--initial-advertise-peer-urls", f"http://127.0.0.1:{peer}",
            "--initial-cluster", f"default=http://127.0.0.1:{peer}",
            "--cert-file", cert, "--key-file", key, "--trusted-ca-file", ca, "--client-cert-auth",
            stdout=log, stderr=log, env=ENVIRONMENT,
        )  # fmt: skip

    async def listens() -> bool:
        context = ssl.create_default_context(cafile=ca)
        context.load_cert_chain(folder / "root.pem", folder / "root.key")
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", client, ssl=context)
        except OSError:
            return False
        writer.close()
        return True

    try:
        await until(listens, 30, "etcd to listen")
        async with connect_etcd(address, timeout=20, tls=tls_of(folder, "root")) as root:
            await root.auth.add_user("root", PASSWORDS["root"])
            await root.auth.add_role("root")
            await root.auth.grant_role("root", "root")
            await root.auth.enable()
        yield address
    finally:
        process.kill()
        await process.wait()


def root_of(address: str, tls: Tls, *, etcd: bool) -> Client:
    if etcd:
        return connect_etcd(address, timeout=20, tls=tls, user="root", password=PASSWORDS["root"])
    return connect_kv.connect(
        address, timeout=20, session=False, tls=tls, user="root", password=PASSWORDS["root"]
    )


@pytest.mark.parametrize("inwards", [True, False], ids=["into ours", "into etcd"])
async def test_with_users_and_certificates(tmp_path: Path, inwards: bool) -> None:
    folder = certify(tmp_path / "pki", "mirror")
    tls = tls_of(folder, "root")
    async with (
        SecureCluster(tmp_path / "ours", folder) as cluster,
        secure_etcd(tmp_path / "etcd", folder) as etcd,
    ):
        await cluster.found_users()
        source, target = (etcd, cluster.endpoints) if inwards else (cluster.endpoints, etcd)
        named = [f"etcd://{address}" if address == etcd else address for address in (source, target)]
        async with (
            root_of(source, tls, etcd=inwards) as there,
            root_of(target, tls, etcd=not inwards) as here,
        ):
            history = moving.History(there, 21, 40)
            await history.changes(80)
            words = [
                "mirror", "--from", named[0], "--to", named[1], "--switch", "--cacert", str(tls.ca),
                "--cert", str(tls.cert), "--key", str(tls.key),
            ]  # fmt: skip
            with pytest.raises(AssertionError):
                await command(*words, "--from-user", ROOT, "--to-user", "root:wrong")
            assert await moving.all_keys(here, 0) == []
            found = await command(*words, "--from-user", ROOT, "--to-user", ROOT)
            assert found["equal"]
            theirs = [(kv.key, kv.value, kv.lease) for kv in await moving.all_keys(there, 0)]
            assert len(theirs) > 10
            assert [(kv.key, kv.value, kv.lease) for kv in await moving.all_keys(here, 0)] == theirs
