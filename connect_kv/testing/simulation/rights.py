"""Users whose rights change while they work: one administrator, and some users of a few keys."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from random import Random

from connect_kv import errors
from connect_kv.client import txn
from connect_kv.client.auth import AuthClient
from connect_kv.client.client import Client
from connect_kv.rpc.auth_pb2 import Permission
from connect_kv.rpc.kv_pb2 import RangeRequest
from connect_kv.testing.checker.rights import ROOT
from connect_kv.testing.simulation.invariants import Violation
from connect_kv.testing.simulation.judged import KEYS
from connect_kv.testing.simulation.world import World

USERS = ("al", "bo", "cy")
ROLES = ("r1", "r2")
ENDS = (b"", b"", *KEYS, b"p4", b"\x00")

Grant = tuple[str, bytes, bytes]
"""Role, key and end of the range."""


class Narrowed:
    """Tells users what was just taken: they try it at once, on members that may not have heard of it yet."""

    def __init__(self) -> None:
        self.span = (b"", b"")
        """What was taken last."""
        self._told = asyncio.Event()

    def tell(self, span: tuple[bytes, bytes]) -> None:
        """It has been acknowledged: whoever reads from now on must not see by that right."""
        self.span = span
        self._told.set()
        self._told = asyncio.Event()

    async def wait(self, seconds: float) -> bool:
        """For the next time, or so long; says whether it has come."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._told.wait()
                return True
        return False


async def change_rights(world: World, name: str, pause: float, narrowed: Narrowed) -> None:
    """Make users and roles, switch authentication on, and change all of it; for ever."""
    rng = world.chance(f"rights {name}")
    async with world.client(name, session=False, timeout=3) as client:
        users = client.auth
        begun: list[Callable[[], Awaitable[None]]] = [
            lambda: users.add_user(ROOT),
            lambda: users.grant_role(ROOT, ROOT),
            *(lambda user=user: users.add_user(user) for user in USERS),
            *(lambda role=role: users.add_role(role) for role in ROLES),
            *(lambda user=user: users.grant_role(user, "r1") for user in USERS),
            users.enable,
        ]
        for step in begun:
            await _insist(step)
        granted: list[Grant] = []
        while True:
            await asyncio.sleep(rng.expovariate(1 / pause))
            with suppress(errors.ConnectKvError):
                await _change(users, rng, granted, narrowed)


async def _insist(step: Callable[[], Awaitable[None]]) -> None:
    """Until it is done; one whose outcome was not known may have been done before."""
    while True:
        try:
            await step()
        except errors.Refused:
            return
        except errors.ConnectKvError:
            await asyncio.sleep(0.05)
        else:
            return


async def _change(users: AuthClient, rng: Random, granted: list[Grant], narrowed: Narrowed) -> None:
    user, role = rng.choice(USERS), rng.choice(ROLES)
    key, end = _span(rng, sound=True)
    match rng.choices(
        ("grant", "revoke", "give", "take", "delete", "add", "unrole", "role", "off"),
        (6, 3, 4, 3, 1, 2, 0.5, 2, 0.5),
    )[0]:
        case "grant":
            await users.grant(role, rng.choice(Permission.Type.values()), key, end)
            granted.append((role, key, end))
        case "revoke":
            # One made up is hardly ever there: too few rights would be lost for anybody to read by one.
            role, key, end = granted.pop() if granted else (role, key, end)
            await users.revoke(role, key, end)
            narrowed.tell((key, end))
        case "give":
            await users.grant_role(user, role)
        case "take":
            await users.revoke_role(user, role)
            narrowed.tell((key, end))
        case "delete":
            await users.delete_user(user)
        case "add":
            await users.add_user(user)
            await users.grant_role(user, role)
        case "unrole":
            await users.delete_role(role)
            narrowed.tell((key, end))
        case "role":
            await users.add_role(role)
        case _:
            await users.disable()
            await asyncio.sleep(rng.random())
            await _insist(users.enable)


async def use_rights(world: World, user: str, pause: float, narrowed: Narrowed) -> None:
    """Read and write, whether allowed or not; for ever. What is written the reference judges, what is read
    is judged here: by a state that was there while the call was under way.
    """
    rng = world.chance(f"user {user}")
    world.clients.certificates[f"u-{user}"] = user
    async with world.client(f"u-{user}", session=rng.random() < 0.5, timeout=2) as client:
        while True:
            lost = await narrowed.wait(rng.expovariate(1 / pause))
            try:
                if lost:
                    await _read(world, client, user, *narrowed.span)
                else:
                    await _use(world, client, user, rng)
            except errors.ConnectKvError:
                continue  # whether what the log refused was rightly refused, the reference says


async def _use(world: World, client: Client, user: str, rng: Random) -> None:
    key, end = _span(rng)
    match rng.choices(("range", "put", "delete", "txn", "lease"), (4, 5, 1, 2, 1))[0]:
        case "range":
            await _read(world, client, user, key, end)
        case "put":
            await client.put(key, user)
        case "delete":
            # Not to the end of all keys: others work there.
            await client.delete(key, b"" if end == b"\x00" else end)
        case "txn":
            other = rng.choice(KEYS)
            await client.transaction(
                [txn.version(key, ">", rng.randrange(2))],
                [txn.put(key, user), txn.get(other)],
                [txn.get(key)],
            )
        case _:
            lease, _ = await client.grant_lease(rng.randint(5, 30))
            await client.put(key, user, lease=lease)
            if rng.random() < 0.5:
                await client.revoke_lease(lease)


async def _read(world: World, client: Client, user: str, key: bytes, end: bytes) -> None:
    judged = world.reference.judged
    first = len(judged.versions) - 1
    await client.range(key, end)
    if not judged.may_read(user, RangeRequest(key=key, range_end=end), first):
        raise Violation(f"{user} read {key!r} to {end!r} without a right to it")


def _span(rng: Random, *, sound: bool = False) -> tuple[bytes, bytes]:
    """A key or a range; a `sound` one can be granted."""
    while True:
        key, end = rng.choice(KEYS), rng.choice(ENDS)
        if not sound or end in (b"", b"\x00") or end > key:
            return key, end
