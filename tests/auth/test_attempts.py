"""Guessing passwords gets slower with every guess, and nobody else does."""

from __future__ import annotations

import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from connect_kv.auth.attempts import (
    ADDRESS,
    FORGET_SECONDS,
    LONGEST_WAIT,
    USER_AND_ADDRESS,
    LoginAttempts,
    host_of,
)
from connect_kv.errors import Refused
from connect_kv.frontend.grpc.router import PEER_ADDRESS, Router, RpcFailed
from connect_kv.rpc import auth_pb2
from tests.auth.test_access import enable
from tests.services.cluster import configs, running


class Hours:
    """A clock that is set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def guess(attempts: LoginAttempts, clock: Hours, name: str, address: str) -> bool:
    """One wrong password, waited for; whether it was looked at."""
    try:
        clock.now += attempts.begin(name, address)
    except Refused:
        return False
    attempts.end(name, address, good=False)
    return True


def test_an_hour_of_guessing_at_one_user_from_one_address_is_few_guesses() -> None:
    clock = Hours()
    attempts, begun, looked_at = LoginAttempts(clock), clock.now, 0
    while clock.now < begun + 3600:
        looked_at += guess(attempts, clock, "al", "10.0.0.1:1")
        clock.now += 0.1
    assert looked_at < 60 + 16, "one a minute once it is slow"


def test_an_hour_of_guessing_at_all_users_from_one_address_is_one_every_two_seconds() -> None:
    clock = Hours()
    attempts, begun, looked_at = LoginAttempts(clock), clock.now, 0
    while clock.now < begun + 3600:
        looked_at += guess(attempts, clock, f"user-{looked_at}", "10.0.0.1:1")
        clock.now += 0.1
    assert looked_at < 3600 / ADDRESS.longest + ADDRESS.free + 16


def test_who_comes_from_another_address_does_not_wait() -> None:
    clock = Hours()
    attempts = LoginAttempts(clock)
    for _ in range(200):
        guess(attempts, clock, "al", "10.0.0.1:1")
    with pytest.raises(Refused, match="too many failed logins: try again in"):
        attempts.begin("al", "10.0.0.1:2")
    assert attempts.begin("al", "10.0.0.2:1") == 0
    assert attempts.begin("bo", "10.0.0.1:3") <= ADDRESS.longest, "others there wait little"


def test_a_success_forgets_the_failures_of_that_user_there_and_not_those_of_the_address() -> None:
    clock = Hours()
    attempts = LoginAttempts(clock)
    for _ in range(ADDRESS.free + 1):
        guess(attempts, clock, "al", "10.0.0.1:1")
        clock.now += 100
    attempts.end("al", "10.0.0.1:1", good=True)
    for _ in range(USER_AND_ADDRESS.free):
        assert attempts.begin("al", "10.0.0.1:1") <= ADDRESS.longest
    guess(attempts, clock, "mallory", "10.0.0.1:1")
    attempts.end("mallory", "10.0.0.1:1", good=True)
    assert attempts.begin("bo", "10.0.0.1:1") > 0, "an account of one's own does not help to guess others"


def test_failures_at_once_take_their_turns() -> None:
    clock = Hours()
    attempts = LoginAttempts(clock)
    for _ in range(USER_AND_ADDRESS.free + 2):
        guess(attempts, clock, "al", "10.0.0.1:1")
    waits: list[float] = []
    with suppress(Refused):
        while True:
            waits.append(attempts.begin("al", "10.0.0.1:1"))
    assert waits == sorted(set(waits)), "one after the other, not all when the first wait is over"
    assert max(waits) <= LONGEST_WAIT


def test_what_nobody_repeats_is_forgotten() -> None:
    clock = Hours()
    attempts = LoginAttempts(clock)
    for _ in range(50):
        guess(attempts, clock, "al", "10.0.0.1:1")
    clock.now += FORGET_SECONDS + 1
    assert attempts.begin("al", "10.0.0.1:1") == 0
    guess(attempts, clock, "al", "10.0.0.1:1")
    assert attempts.begin("al", "10.0.0.1:1") == 0, "counted from the beginning"


def test_many_names_and_addresses_take_bounded_memory() -> None:
    clock, rng = Hours(), random.Random(1)
    attempts = LoginAttempts(clock, most_known=100)
    for _ in range(20_000):
        guess(attempts, clock, f"u{rng.random()}" * 100, f"10.{rng.randrange(256)}.{rng.randrange(256)}.1:5")
    assert attempts.known <= 200


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("10.1.2.3:4000", "10.1.2.3"),
        ("[2001:db8:1:2:3:4:5:6]:4000", "2001:db8:1:2::/64"),
        ("[::ffff:10.1.2.3]:4000", "10.1.2.3"),
        ("", ""),
        ("nonsense:1", "nonsense"),
    ],
)
def test_who_is_slowed_together(address: str, host: str) -> None:
    assert host_of(address) == host


async def login(router: Router, name: str, password: str, address: str) -> str:
    """What comes of it: a token, or the text of the refusal."""
    request = auth_pb2.AuthenticateRequest(name=name, password=password)
    metadata = [(PEER_ADDRESS, address)]
    try:
        answer = await router.route("/etcdserverpb.Auth/Authenticate").unary(
            request.SerializeToString(), metadata
        )
    except RpcFailed as failed:
        return failed.status.text
    return auth_pb2.AuthenticateResponse.FromString(answer).token


async def test_a_member_refuses_who_has_guessed_and_lets_in_who_has_not(tmp_path: Path) -> None:
    (config,) = configs(tmp_path, 1)
    async with running([config]) as (member,):
        await enable(member)
        router, service = member.server.services.router, member.server.services.authentication.service
        for _ in range(USER_AND_ADDRESS.free + 1):
            assert "authentication failed" in await login(router, "root", "wrong", "10.0.0.1:7")
        for _ in range(6):  # more of them, without the waiting
            service.attempts.end("root", "10.0.0.1:7", good=False)
        failed = service.attempts.failed
        assert "too many" in await login(router, "root", "pw", "10.0.0.1:8"), "unread, right or wrong"
        assert service.attempts.failed == failed
        assert "." in await login(router, "root", "pw", "10.0.0.2:7")
        text = member.server.metrics.text().decode()
        assert f'connect_kv_logins_total{{outcome="failed"}} {float(failed)}' in text


async def test_the_address_is_that_of_the_connection_and_no_client_can_say_another(tmp_path: Path) -> None:
    (config,) = configs(tmp_path, 1)
    async with running([config]) as (member,):
        await enable(member)
        service, seen = member.server.services.authentication.service, list[str]()
        begin = service.attempts.begin

        def noted(name: str, address: str) -> float:
            seen.append(address)
            return begin(name, address)

        service.attempts.begin = noted  # type: ignore[method-assign]
        request = auth_pb2.AuthenticateRequest(name="root", password="pw")
        call: Any = member.channel.unary_unary("/etcdserverpb.Auth/Authenticate")
        await call(request.SerializeToString(), timeout=10)
        assert host_of(seen[0]) == "127.0.0.1"


async def test_who_may_not_add_users_costs_no_hash(tmp_path: Path) -> None:
    """Hashes are made on the thread that logins need."""
    (config,) = configs(tmp_path, 1)
    async with running([config]) as (member,):
        await enable(member)
        services = member.server.services
        made = []
        passwords: Any = services.authentication.service._passwords
        hash_before = passwords.hash

        async def hashed(password: str) -> str:
            made.append(1)
            return str(await hash_before(password))

        passwords.hash = hashed
        requests: list[tuple[str, Any]] = [
            ("UserAdd", auth_pb2.AuthUserAddRequest(name="al", password="pw")),
            ("UserChangePassword", auth_pb2.AuthUserChangePasswordRequest(name="root", password="pw")),
        ]
        for method, request in requests:
            with pytest.raises(RpcFailed) as failed:
                await services.router.route(f"/etcdserverpb.Auth/{method}").unary(
                    request.SerializeToString(), ()
                )
            assert failed.value.status.text == "etcdserver: user name is empty"
        assert not made
