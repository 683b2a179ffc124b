"""No secret is in any log line, error, representation or metric: planted ones are looked for."""

from __future__ import annotations

import gc
import logging
from dataclasses import is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from connect_kv.frontend.grpc.router import RpcFailed
from connect_kv.rpc import auth_pb2 as auth
from connect_kv.rpc.kv_pb2 import PutRequest, RangeRequest, TxnRequest
from tests.audit.test_audit import call
from tests.auth.test_access import enable
from tests.services.cluster import configs, running

PASSWORD, OTHER, WRONG = "s3cr3t-password", "s3cr3t-changed", "s3cr3t-wrong"
VALUE, KEY = b"s3cr3t-value", "s3cr3t-key-of-thirty-two-bytes-or-more"
PLANTED = "s3cr3t"


def shown() -> list[str]:
    """What every dataclass and error of ours says of itself, if somebody prints it."""
    found = []
    for one in gc.get_objects():
        kind = type(one)
        if str(kind.__module__).startswith("connect_kv") and (
            is_dataclass(one) or isinstance(one, BaseException)
        ):
            try:
                found.append(f"{kind.__name__}: {one!r} {one!s}")
            except Exception:
                continue  # half made
    return found


@pytest.mark.parametrize("jwt", [False, True])
async def test_what_is_secret_is_nowhere_to_be_seen(
    jwt: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="connect_kv")
    (config,) = configs(tmp_path, 1)
    config = replace(config, audit_log=tmp_path / "audit.jsonl", audit_level="reads", bcrypt_cost=4)
    if jwt:
        key = tmp_path / "hmac.key"
        key.write_text(KEY)
        config = replace(config, auth_token=f"jwt,sign-method=HS256,priv-key={key}")
    said: list[str] = []
    async with running([config]) as (member,):
        await enable(member)

        async def ask(name: str, request: Any, *metadata: tuple[str, str]) -> bytes:
            try:
                return await call(member, name, request, *metadata)
            except RpcFailed as failed:
                said.append(repr(failed) + failed.status.text + repr(failed.status.trailing))
                return b""

        root = auth.AuthenticateResponse.FromString(
            await ask("Auth.Authenticate", auth.AuthenticateRequest(name="root", password="pw"))
        ).token
        tokens = [root]
        as_root = ("token", root)
        await ask("Auth.UserAdd", auth.AuthUserAddRequest(name="al", password=PASSWORD), as_root)
        await ask("Auth.UserAdd", auth.AuthUserAddRequest(name="al", password=PASSWORD), as_root)
        await ask("Auth.UserAdd", auth.AuthUserAddRequest(name="bo", password=PASSWORD * 9), as_root)
        await ask("Auth.UserAdd", auth.AuthUserAddRequest(name="cy", password=PASSWORD))
        for password in (PASSWORD, WRONG, WRONG * 9):
            answer = await ask("Auth.Authenticate", auth.AuthenticateRequest(name="al", password=password))
            tokens.append(auth.AuthenticateResponse.FromString(answer).token)
        change = auth.AuthUserChangePasswordRequest(name="al", password=OTHER)
        await ask("Auth.UserChangePassword", change, as_root)
        await ask("Auth.UserChangePassword", change, ("token", WRONG))
        put = PutRequest(key=b"k", value=VALUE)
        txn = TxnRequest()
        txn.success.add().request_put.CopyFrom(put)
        for who in ((), (as_root,), (("token", tokens[1]),), (("authorization", f"Bearer {WRONG}"),)):
            await ask("KV.Put", put, *who)
            await ask("KV.Txn", txn, *who)
            await ask("KV.Range", RangeRequest(key=b"k"), *who)
        member.server.host.auth.users["al"]
        metrics = member.server.metrics.text().decode()
        seen = [*shown(), repr(config), repr(member.server.services.authentication), metrics, *said]
    seen += [f"{record.getMessage()} {vars(record)}" for record in caplog.records]
    seen += (tmp_path / "audit.jsonl").read_text().splitlines()
    assert len(said) > 5, "errors were told"
    secrets = [PLANTED, *filter(None, tokens)]
    leaks = [text[:300] for text in seen for secret in secrets if secret in text]
    assert not leaks, sorted({text.partition(":")[0] for text in leaks})
