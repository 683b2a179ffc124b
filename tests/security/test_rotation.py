"""Every key is replaced under load, as docs/security.md says: no call fails that may be repeated."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

import connect_kv
from connect_kv import OutcomeUnknown, Refused, Tls
from connect_kv.authority import make_authority, make_client, make_node, renew
from connect_kv.client.client import Client
from connect_kv.testing.processes import NodeProcess, until
from tests.security.secure import NAMES, PASSWORDS, SecureCluster, certify

pytestmark = pytest.mark.cluster

PAGE = Path(__file__).parent.parent.parent / "docs" / "security.md"


@dataclass
class Load:
    """Programs that write and read while keys change; whatever they are told is kept."""

    clients: list[Client]
    done: int = 0
    errors: list[BaseException] = field(default_factory=list)
    unknown: int = 0
    """Single writes whose answer went with a member that was restarted."""
    ending: bool = False

    async def one(self, client: Client, name: str, *, session: bool) -> None:
        """Each write is read back at once: linearizable."""
        number = 0
        while not self.ending:
            try:
                await client.put(f"k/{name}", str(number), timeout=30)
                found = await client.get(f"k/{name}", timeout=30)
                assert found is not None
                assert found.value == str(number).encode()
            except OutcomeUnknown as error:
                if session:
                    self.errors.append(error)
                    return
                self.unknown += 1  # not to be repeated by the client: a member left with the answer
            except Exception as error:
                self.errors.append(error)
                return
            number += 1
            self.done += 1
            await asyncio.sleep(0.005)

    async def go_on(self, calls: int = 40) -> None:
        """Wait for so many more."""
        wanted = self.done + calls

        async def enough() -> bool:
            assert not self.errors, self.errors
            return self.done >= wanted

        await until(enough, 60, "the load to go on")


@asynccontextmanager
async def load(cluster: SecureCluster, tls: Tls) -> AsyncIterator[Load]:
    """As al: through a session, and call by call; both by one client's certificate."""
    clients = [
        connect_kv.connect(
            cluster.endpoints, tls=tls, user="al", password=PASSWORDS["al"], session=session, timeout=30
        )
        for session in (True, False)
    ]
    found = Load(clients)
    async with clients[0], clients[1], asyncio.TaskGroup() as tasks:
        for at, client in enumerate(clients):
            tasks.create_task(found.one(client, str(at), session=at == 0))
        try:
            await found.go_on()
            yield found
            await found.go_on()
        finally:
            found.ending = True
    assert not found.errors
    print(f"{found.done} writes and reads, {found.unknown} of unknown outcome")


async def new_connections(cluster: SecureCluster, tls: Tls) -> None:
    """Handshakes with each member, by the files as they are now."""
    for node in cluster.nodes:
        async with connect_kv.connect(
            node.client_address, tls=tls, user="al", password=PASSWORDS["al"], session=False, timeout=20
        ) as client:
            await client.get("k/0")


async def restart_one_by_one(cluster: SecureCluster, under: Load) -> None:
    """Each leaves in order and comes back: all connections of members are made anew."""
    for node in cluster.nodes:
        assert await node.stop() == 0
        await node.start()
        await node.ready()
        await under.go_on()


def copy(source: Path, target: Path) -> None:
    """As an operator replaces a file: whole, beside it, then renamed."""
    beside = target.with_name(f".{target.name}")
    shutil.copy2(source, beside)
    beside.replace(target)


def taken_over(node: NodeProcess) -> int:
    return node.log_file.read_text().count("TLS files were read again")


async def all_took_over(cluster: SecureCluster, change: Callable[[], None]) -> None:
    """Change files; wait until every member says that it has read them (within ten seconds, untouched)."""
    before = [taken_over(node) for node in cluster.nodes]
    change()

    async def everybody() -> bool:
        # One for clients and one for members.
        return all(taken_over(node) >= old + 2 for node, old in zip(cluster.nodes, before, strict=True))

    await until(everybody, 40, "all members to read the files")


@pytest.fixture
async def rotating(tmp_path: Path) -> AsyncIterator[tuple[SecureCluster, Path]]:
    """Three members with a folder of files each client and member uses, and the authority's beside it."""
    folder = certify(tmp_path / "certs", "al")
    async with SecureCluster(tmp_path, folder) as cluster:
        await cluster.found_users()
        yield cluster, folder


def step(words: str) -> None:
    """The page has that step: who changes one changes the other."""
    page = " ".join(PAGE.read_text().split())
    assert words in page, f"docs/security.md does not say: {words}"


async def test_certificates_and_the_authority_are_replaced_under_load(
    rotating: tuple[SecureCluster, Path], tmp_path: Path
) -> None:
    cluster, folder = rotating
    al = Tls(ca=folder / "ca.pem", cert=folder / "al.pem", key=folder / "al.key")
    async with load(cluster, al) as under:

        def renew_all() -> None:
            for name in (*NAMES, "root", "al"):
                renew(folder, name)

        step("`connect-kv certs renew n1 n2 n3 al` signs them again")
        await all_took_over(cluster, renew_all)
        await new_connections(cluster, al)
        await under.go_on()

        step("a new key: make the pair in another folder, and copy both files")
        other = tmp_path / "other"
        other.mkdir()
        for end in ("pem", "key"):
            shutil.copy2(folder / f"ca.{end}", other)
        for name in NAMES:
            make_node(other, name, ["127.0.0.1", "localhost"])
        for name in ("root", "al"):
            make_client(other, name)

        def both_files() -> None:
            for name in (*NAMES, "root", "al"):
                for end in ("key", "pem"):
                    copy(other / f"{name}.{end}", folder / f"{name}.{end}")

        await all_took_over(cluster, both_files)
        await new_connections(cluster, al)
        await under.go_on()

        step("1. Make it in a folder of its own: `connect-kv certs init --dir new`")
        new = tmp_path / "new"
        make_authority(new)
        for name in NAMES:
            make_node(new, name, ["127.0.0.1", "localhost"])
        for name in ("root", "al"):
            make_client(new, name)
        step("2. Give everybody both: `cat certs/ca.pem new/ca.pem`")
        both = tmp_path / "both.pem"
        both.write_bytes((folder / "ca.pem").read_bytes() + (new / "ca.pem").read_bytes())
        await all_took_over(cluster, lambda: copy(both, folder / "ca.pem"))
        await under.go_on()
        step("3. Replace the certificates, in any order")
        for name in (*NAMES, "root", "al"):
            for end in ("key", "pem"):
                copy(new / f"{name}.{end}", folder / f"{name}.{end}")
            await under.go_on(10)
        await new_connections(cluster, al)
        step("4. Restart the members one by one")
        await restart_one_by_one(cluster, under)
        step("5. Give everybody the new one alone")
        await all_took_over(cluster, lambda: copy(new / "ca.pem", folder / "ca.pem"))
        await new_connections(cluster, al)
        await restart_one_by_one(cluster, under)
        await under.go_on()
    old = Tls(ca=new / "ca.pem", cert=other / "al.pem", key=other / "al.key")
    async with connect_kv.connect(
        cluster.endpoints, tls=old, token="x", timeout=2, session=False
    ) as stranger:
        with pytest.raises(connect_kv.Unavailable):
            await stranger.get("k/0")


async def test_the_key_of_json_web_tokens_is_replaced_under_load(tmp_path: Path) -> None:
    folder = certify(tmp_path / "certs", "al")
    key = tmp_path / "jwt.key"
    make_key(key)
    tokens = ("--auth-token", f"jwt,sign-method=RS256,priv-key={key},ttl=10m")
    async with SecureCluster(tmp_path, folder, arguments=tokens) as cluster:
        await cluster.found_users()
        al = Tls(ca=folder / "ca.pem", cert=folder / "al.pem", key=folder / "al.key")
        async with cluster.client() as root:
            stolen = await root.auth.login("al", PASSWORDS["al"])
        async with load(cluster, al) as under:
            step("Replace the file on all members, then restart them one by one")
            make_key(key)
            await restart_one_by_one(cluster, under)
        for node in cluster.nodes:
            async with connect_kv.connect(node.client_address, tls=al, token=stolen) as thief:
                with pytest.raises(Refused, match="invalid auth token"):
                    await thief.get("k/0")


def make_key(path: Path) -> None:
    key = rsa.generate_private_key(65537, 2048)
    beside = path.with_name(f".{path.name}")
    beside.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    beside.replace(path)


async def test_a_stolen_token_dies_with_its_user_on_all_members_within_a_second(
    rotating: tuple[SecureCluster, Path],
) -> None:
    cluster, folder = rotating
    tls = Tls(ca=folder / "ca.pem", cert=folder / "al.pem", key=folder / "al.key")
    loop = asyncio.get_running_loop()
    async with cluster.client() as root:
        for end in (root.auth.delete_user("al"), root.auth.change_password("al", "another")):
            token = await root.auth.login("al", PASSWORDS["al"])
            thieves = [
                connect_kv.connect(node.client_address, tls=tls, token=token, session=False)
                for node in cluster.nodes
            ]
            for thief in thieves:
                await thief.open()
                await thief.get("k/0")  # it works at each of them
                assert await thief.get("k/0", serializable=True) is None
            await end
            deadline = loop.time() + 1
            await asyncio.gather(*(dead(thief, deadline) for thief in thieves))
            for thief in thieves:
                await thief.close()
            await anew(root)


async def dead(thief: Client, deadline: float) -> None:
    """Refused at that member by then, for a serializable read too, which asks nobody else."""
    loop = asyncio.get_running_loop()
    while (told := await refusal(thief)) is None:
        assert loop.time() < deadline, "it still works"
    assert told == "etcdserver: invalid auth token"


async def refusal(thief: Client) -> str | None:
    try:
        await thief.get("k/0", serializable=True)
    except Refused as refused:
        return refused.message
    return None


async def anew(root: Client) -> None:
    """al is there with the usual password and role."""
    if "al" not in await root.auth.users():
        await root.auth.add_user("al", PASSWORDS["al"])
        await root.auth.grant_role("al", "k")
    else:
        await root.auth.change_password("al", PASSWORDS["al"])


def test_the_page_numbers_its_steps() -> None:
    """Five of them for another authority."""
    section = PAGE.read_text().split("### Another authority")[1].split("###")[0]
    assert re.findall(r"^(\d)\. ", section, re.MULTILINE) == list("12345")
