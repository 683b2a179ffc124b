"""The Python client where users are asked for: it logs in, and again when its token is no longer known."""

from __future__ import annotations

import asyncio
from inspect import signature
from pathlib import Path

import pytest

import connect_kv.sync
from connect_kv import Client, ConfigError, Refused, Replicated, Unavailable, command, connect, query
from connect_kv.client.auth import COMMAND, QUERY, READ, READWRITE
from connect_kv.client.auth import AuthClient as AsyncAuthClient
from connect_kv.statemachine.hosted import ReplicatedMachine
from connect_kv.sync_auth import AuthClient
from tests.auth.conftest import PASSWORDS, found_users, guarded, server_at, user
from tests.services.conftest import until


class Counter(Replicated):
    def __init__(self) -> None:
        self.total = 0

    @command
    def increment(self) -> int:
        self.total += 1
        return self.total

    @query
    def value(self) -> int:
        return self.total


async def forget_tokens(root: Client, name: str) -> None:
    """Setting a password, be it the same, ends all tokens of a user."""
    await root.auth.change_password(name, PASSWORDS[name])


@pytest.mark.parametrize("session", [True, False])
async def test_calls_go_on_when_the_token_is_forgotten(tmp_path: Path, session: bool) -> None:
    async with guarded(tmp_path) as (server, root), user(server, "al", session=session) as al:
        await al.put("k", "1")
        for _ in range(3):
            await forget_tokens(root, "al")
            await al.put("k", "2")
            found = await al.range("k", prefix=True)
            assert [kv.value for kv in found.kvs] == [b"2"]
        assert (await al.status()).header.revision == 5


@pytest.mark.parametrize("session", [True, False])
async def test_a_client_that_was_there_before_authentication_was_switched_on_logs_in(
    tmp_path: Path, session: bool
) -> None:
    async with server_at(tmp_path) as server, user(server, "root") as root:
        await found_users(root)
        async with user(server, "al", session=session) as al, al.watch("k") as changes:
            await al.put("k", "before")
            assert (await anext(changes)).kv.value == b"before"
            await root.auth.enable()
            assert await root.auth.status() == (True, 7)
            await al.put("k", "after")
            assert (await asyncio.wait_for(anext(changes), 60)).kv.value == b"after"
            await root.auth.disable()
            await al.put("k", "off")
            await root.auth.enable()
            await al.put("k", "on")
            assert [(await asyncio.wait_for(anext(changes), 60)).kv.value for _ in range(2)] == [
                b"off",
                b"on",
            ]


async def test_json_web_tokens_that_became_stale_are_renewed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"s" * 32)
    tokens = f"jwt,sign-method=HS256,priv-key={secret}"
    async with (
        guarded(tmp_path, auth_token=tokens) as (server, root),
        user(server, "al") as al,
        user(server, "al", session=False) as unary,
    ):
        for number in range(3):
            await al.put("k", str(number))
            await unary.put("k", str(number))
            await root.auth.add_role(f"role {number}")


async def test_a_restarted_member_knows_no_token_and_nobody_notices(tmp_path: Path, address: str) -> None:
    async with guarded(tmp_path) as (_, root):
        await root.auth.grant("k", READWRITE, "lock/", prefix=True)
    async with connect(address, user="al", password="secret", timeout=20) as al:
        async with server_at(tmp_path, listen_client=address):
            await al.put("k", "1")
            lease = await al.lease(6)
            watch = al.watch("k")
            await watch.__aenter__()
        async with server_at(tmp_path, listen_client=address):
            await al.put("k", "2", lease=lease)
            event = await asyncio.wait_for(anext(watch), 60)
            assert event.kv.value == b"2"
            renewed = lease.valid_until
            await until(lambda: lease.valid_until > renewed)
            async with al.lock("lock") as lock:
                assert lock.held
            await watch.close()
            await lease.revoke()


async def test_a_password_that_is_no_longer_right_ends_what_waits_with_the_reason(tmp_path: Path) -> None:
    async with guarded(tmp_path) as (server, root):
        for session in (True, False):
            async with user(server, "al", session=session) as al:
                await al.put("k", "1")
                await root.auth.change_password("al", "another")
                with pytest.raises(Refused, match="authentication failed, invalid user ID or password"):
                    await al.get("k")
                await root.auth.change_password("al", "secret")
                assert await al.get("k")  # it was only the password


async def test_what_is_refused_for_want_of_rights_is_no_reason_to_log_in_again(tmp_path: Path) -> None:
    async with guarded(tmp_path) as (server, root), user(server, "al") as al:
        for call in (al.get("foreign"), al.put("foreign", "1"), al.auth.users(), al.auth.add_user("x", "y")):
            with pytest.raises(Refused, match=r"^etcdserver: permission denied$"):
                await call
        with pytest.raises(Refused, match="user name is empty"):
            await root.auth.add_user("", "x")
        watch = al.watch("foreign")
        with pytest.raises(Refused, match="permission denied"):
            await anext(watch)


async def test_a_token_alone_serves_until_it_ends(tmp_path: Path) -> None:
    async with guarded(tmp_path) as (server, root):
        token = await root.auth.login("al", "secret")
        for session in (True, False):
            async with connect(server.client_address, token=token, session=session) as al:
                await al.put("k", "1")
        await forget_tokens(root, "al")
        for session in (True, False):
            async with connect(server.client_address, token=token, session=session) as al:
                with pytest.raises(Refused, match="invalid auth token"):
                    await al.put("k", "1")
        async with connect(server.client_address) as nobody:
            with pytest.raises(Refused, match="user name is empty"):
                await nobody.put("k", "1")


async def test_users_and_roles_by_the_client(tmp_path: Path) -> None:
    async with guarded(tmp_path, {"counter": ReplicatedMachine(Counter())}) as (server, root):
        auth = root.auth
        assert await auth.users() == ["al", "root"]
        assert await auth.roles() == ["k"]
        await auth.add_user("cert")
        assert await auth.user("al") == ["k"]
        await auth.grant("k", READ, "b", "d")
        await auth.grant_machine("k", QUERY, "counter")
        role = await auth.role("k")
        assert [(one.permType, one.key, one.range_end) for one in role.permissions] == [
            (READ, b"b", b"d"),
            (READWRITE, b"k", b"l"),
        ]
        assert [(one.permType, one.machine) for one in role.machines] == [(QUERY, "counter")]
        async with user(server, "al") as al:
            counter = al.machine("counter", Counter)
            assert await counter.call(Counter.value) == 0
            with pytest.raises(Refused, match="permission denied"):
                await counter.call(Counter.increment)
            await auth.grant_machine("k", COMMAND, "counter")
            assert await counter.call(Counter.increment) == 1
            await auth.revoke_machine("k", "counter")
            with pytest.raises(Refused, match="permission denied"):
                await counter.call(Counter.value)
            await auth.revoke("k", "k", prefix=True)
            with pytest.raises(Refused, match="permission denied"):
                await al.get("k")
            await auth.revoke_role("al", "k")
            await auth.delete_role("k")
            assert await auth.user("al") == []
            assert await auth.roles() == []
            await auth.delete_user("al")
            with pytest.raises(Refused, match="authentication failed"):
                await al.get("k")


async def test_the_blocking_client_logs_in_too(tmp_path: Path) -> None:
    async with guarded(tmp_path) as (server, _):

        def use() -> None:
            with connect_kv.sync.connect(server.client_address, user="al", password="secret") as al:
                al.put("k", "1")
                assert al.get("k")
                with pytest.raises(Refused, match="permission denied"):
                    al.auth.add_role("r")
            with connect_kv.sync.connect(server.client_address, user="root", password="r00t") as root:
                root.auth.add_role("r")
                root.auth.grant("r", READ, "r/", prefix=True)
                root.auth.grant_role("al", "r")
                assert root.auth.user("al") == ["k", "r"]
                assert root.auth.role("r").permissions[0].range_end == b"r0"
                assert root.auth.status()[0]

        await asyncio.to_thread(use)


async def test_a_thousand_calls_make_one_login(tmp_path: Path) -> None:
    """Comparing a password is dear on purpose."""
    async with guarded(tmp_path) as (server, root), user(server, "al", session=False) as al:
        await asyncio.gather(*(al.put("k", str(number)) for number in range(200)))
        await forget_tokens(root, "al")
        await asyncio.gather(*(al.put("k", str(number)) for number in range(200)))
        assert list(server.services.authentication.table.tokens.values()).count("al") == 1


async def test_no_login_without_a_member_is_said_so(tmp_path: Path) -> None:
    async with connect("127.0.0.1:1", user="al", password="x", timeout=0.5) as al:
        with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1 refuses connections"):
            await al.put("k", "1")


@pytest.mark.parametrize(
    ("user", "password", "token"),
    [("al", None, ""), ("", "secret", ""), ("al", "secret", "t"), ("", "x", "t")],
)
def test_half_of_it_is_refused(user: str, password: str | None, token: str) -> None:
    with pytest.raises(ConfigError, match="expected a user and a password, or a token"):
        connect("127.0.0.1:1", user=user, password=password, token=token)


def test_the_blocking_calls_are_those_of_the_other() -> None:
    for name, call in vars(AsyncAuthClient).items():
        if not name.startswith("_"):
            assert signature(getattr(AuthClient, name)) == signature(call), name


def test_the_password_is_in_no_repr() -> None:
    client = connect("127.0.0.1:1", user="al", password="secret")
    assert "secret" not in repr(client) + repr(vars(client))
