"""Puts together who calls and who may, for one member."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass

from connect_kv.auth.authenticator import Authenticator
from connect_kv.auth.passwords import Passwords
from connect_kv.auth.table import AuthTable
from connect_kv.auth.token_options import make_tokens
from connect_kv.auth.tokens import Tokens
from connect_kv.config import ServerConfig
from connect_kv.interfaces import Clock, Worker
from connect_kv.kv.machine import KvMachine
from connect_kv.services.access import Access
from connect_kv.services.audit import Audit, Level, Trail
from connect_kv.services.auth import AuthService
from connect_kv.services.executor import CommandExecutor

logger = logging.getLogger(__name__)

_EXPIRE_SECONDS = 1.0
"""How often simple tokens are looked through for those nobody uses."""


@dataclass(frozen=True, slots=True)
class Authentication:
    """What services and front ends need of it."""

    table: AuthTable
    tokens: Tokens
    access: Access
    service: AuthService
    clock: Clock

    async def expire_tokens(self) -> None:
        """Drop tokens whose time is over, until cancelled."""
        while True:
            await self.clock.sleep(_EXPIRE_SECONDS)
            self.tokens.expire()


def make_authentication(
    config: ServerConfig,
    *,
    table: AuthTable,
    executor: CommandExecutor,
    kv: KvMachine,
    worker: Worker,
    clock: Clock,
    rng: random.Random,
    last_applied: Callable[[], int],
) -> Authentication:
    """`worker` hashes passwords; `rng` must be one that nobody can predict. Raises ConfigError."""
    tokens = make_tokens(
        config.auth_token,
        table,
        simple_ttl=config.auth_token_ttl,
        now=clock.now,
        wall=lambda: clock.wall() / 1e9,
        warn=logger.warning,
    )

    async def applied(index: int) -> None:
        # A token is told to its owner once its login is applied somewhere: what is committed by now has it.
        await executor.barrier()

    authenticator = Authenticator(
        table, tokens, applied=applied, last_applied=last_applied, patience=config.election_ms / 1000
    )
    access = Access(table, authenticator, lambda: kv.source)
    passwords = Passwords(worker, cost=config.bcrypt_cost)
    service = AuthService(executor, table, access, passwords, tokens, rng, clock=clock)
    return Authentication(table, tokens, access, service, clock)


def make_audit(config: ServerConfig, trail: Trail, access: Access, clock: Clock) -> Audit:
    """Writes down what callers of this member do."""
    return Audit(
        trail,
        level=Level[config.audit_level.upper()],
        node=config.name,
        wall=clock.wall,
        enabled=lambda: access.enabled,
        user_of=access.who,
        later=lambda seconds, call: asyncio.get_running_loop().call_later(seconds, call),
    )
