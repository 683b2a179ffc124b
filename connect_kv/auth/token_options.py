"""``--auth-token``: how tokens are made, in etcd's words."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from connect_kv.auth.table import AuthTable
from connect_kv.auth.tokens import JwtTokens, SimpleTokens, Tokens
from connect_kv.errors import ConfigError

METHODS = frozenset(f"{family}{bits}" for family in ("RS", "PS", "ES", "HS") for bits in (256, 384, 512)) | {
    "EdDSA"
}
_UNITS: Mapping[str, float] = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_KNOWN = frozenset(("pub-key", "priv-key", "sign-method", "ttl"))
_JWT_SECONDS = 300.0


def make_tokens(
    option: str,
    table: AuthTable,
    *,
    simple_ttl: float,
    now: Callable[[], float],
    wall: Callable[[], float],
    warn: Callable[[str], None],
) -> Tokens:
    """As ``simple``, or ``jwt,pub-key=FILE,priv-key=FILE,sign-method=RS256,ttl=5m``.

    `now` is monotonic, `wall` since 1970, both in seconds. Raises ConfigError naming what is wrong.
    """
    kind, *settings = option.split(",")
    if kind == "simple":
        return SimpleTokens(table, now, ttl=simple_ttl)
    if kind != "jwt":
        raise ConfigError(f"auth_token: expected simple or jwt,..., got {kind!r}")
    given = dict(setting.partition("=")[::2] for setting in settings)
    for name in sorted(given.keys() - _KNOWN):
        warn(f"auth_token: {name!r} has no meaning here")
    method = given.get("sign-method", "")
    if method not in METHODS:
        raise ConfigError(f"auth_token: sign-method: expected one of {', '.join(sorted(METHODS))}")
    ttl = _seconds(given["ttl"]) if "ttl" in given else _JWT_SECONDS
    verify, sign = _keys(method, given.get("pub-key"), given.get("priv-key"))
    return JwtTokens(table, wall, method=method, verify_key=verify, sign_key=sign, ttl=ttl)


def _seconds(text: str) -> float:
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ConfigError(f"auth_token: ttl: expected a duration such as 5m, got {text!r}")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def _keys(method: str, public: str | None, private: str | None) -> tuple[object, object | None]:
    """To verify with, and to sign with; the private key alone is enough for both."""
    if method.startswith("HS"):
        if private is None:
            raise ConfigError("auth_token: priv-key: the file with the secret is missing")
        secret = _read(private, "priv-key")
        return secret, secret
    if public is None and private is None:
        raise ConfigError("auth_token: pub-key or priv-key is needed")
    try:
        sign = None if private is None else load_pem_private_key(_read(private, "priv-key"), None)
        if public is not None:
            return load_pem_public_key(_read(public, "pub-key")), sign
        assert sign is not None
        pem = sign.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return load_pem_public_key(pem), sign
    except (ValueError, TypeError) as error:
        raise ConfigError(f"auth_token: no key of a kind that fits {method}: {error}") from error


def _read(path: str, what: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"auth_token: {what}: {path}: {error.strerror}") from error
