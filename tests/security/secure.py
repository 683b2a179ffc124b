"""Clusters of real processes over mTLS with users: certificates, and how each client is told of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from connect_kv import Tls
from connect_kv.authority import make_authority, make_client, make_node
from connect_kv.client.auth import READWRITE
from connect_kv.testing.processes import NodeProcess, ProcessCluster

PASSWORDS = {"root": "r00t", "al": "secret"}
NAMES = ("n1", "n2", "n3")


def certify(folder: Path, *clients: str) -> Path:
    """An authority, a certificate for each member, and for root and these clients."""
    make_authority(folder)
    for name in NAMES:
        make_node(folder, name, ["127.0.0.1", "localhost"])
    for name in ("root", *clients):
        make_client(folder, name)
    return folder


def tls_of(folder: Path, client: str = "") -> Tls:
    """As that client; without a name, with no certificate."""
    if not client:
        return Tls(ca=folder / "ca.pem")
    return Tls(ca=folder / "ca.pem", cert=folder / f"{client}.pem", key=folder / f"{client}.key")


class SecureCluster(ProcessCluster):
    """Three members that speak TLS only. Its clients are root: by password, `mutual` also by certificate."""

    def __init__(
        self, directory: Path, folder: Path, *, mutual: bool = True, arguments: tuple[str, ...] = ()
    ) -> None:
        super().__init__(
            directory,
            arguments=("--http-tls", "off", "--bcrypt-cost", "4", *arguments),
            tls=tls_of(folder, "root" if mutual else ""),
            user="root",
            password=PASSWORDS["root"],
        )
        self.folder = folder
        for node in self.nodes:
            node.arguments += self.options(node, mutual)

    def options(self, node: NodeProcess, mutual: bool) -> list[str]:
        """Of TLS, for that node."""
        cert, key, ca = (
            str(self.folder / name) for name in (f"{node.name}.pem", f"{node.name}.key", "ca.pem")
        )
        return [
            *("--cert-file", cert, "--key-file", key),
            *(("--trusted-ca-file", ca) if mutual else ()),
            *("--peer-cert-file", cert, "--peer-key-file", key, "--peer-trusted-ca-file", ca),
        ]

    async def found_users(self) -> None:
        """root, and al who may read and write below ``k/``; authentication on."""
        async with self.client() as root:
            await root.auth.add_user("root", PASSWORDS["root"])
            await root.auth.grant_role("root", "root")
            await root.auth.add_user("al", PASSWORDS["al"])
            await root.auth.add_role("k")
            await root.auth.grant("k", READWRITE, "k/", prefix=True)
            await root.auth.grant_role("al", "k")
            await root.auth.enable()


def environment(folder: Path, *, certificate: str = "", user: str = "") -> Mapping[str, str]:
    """For the programs of tests/clients."""
    found = {"CLIENT_CA": str(folder / "ca.pem")}
    if certificate:
        found |= {"CLIENT_CERT": str(folder / f"{certificate}.pem")}
        found |= {"CLIENT_KEY": str(folder / f"{certificate}.key")}
    if user:
        found |= {"CLIENT_USER": user, "CLIENT_PASSWORD": PASSWORDS[user]}
    return found
