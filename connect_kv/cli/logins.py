"""Tokens that `login` keeps for later calls, in a file that its owner alone can read."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from connect_kv.errors import ConfigError

VARIABLE = "CONNECT_KV_LOGINS"
"""Names another file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedLogin:
    """The login of one cluster: its endpoints, user and token."""

    endpoints: tuple[str, ...]
    """Of all its members, as far as they were known: nobody else is ever shown the token."""
    tls: bool
    """Whether the token came over TLS: then it is never sent in the clear."""
    user: str
    token: str = field(repr=False)


def path() -> Path:
    """The file. Raises ConfigError where nothing says whose home this is."""
    if given := os.environ.get(VARIABLE):
        return Path(given)
    try:
        base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    except RuntimeError:
        raise ConfigError(f"there is no home directory to keep logins in: set {VARIABLE}") from None
    return Path(base) / "connect-kv" / "logins.json"


def token_for(endpoints: Iterable[str], *, tls: bool) -> str:
    """Of a login to the cluster that has all these members; empty if there is none. Raises ConfigError."""
    wanted = set(endpoints)
    for one in _load():
        if wanted <= set(one.endpoints) and (tls or not one.tls):
            return one.token
    return ""


def keep(login: SavedLogin) -> Path:
    """Write it down in place of others to any of its members; returns the file. Raises ConfigError."""
    others = [one for one in _load() if not set(one.endpoints) & set(login.endpoints)]
    _store([*others, login])
    return path()


def forget(endpoints: Iterable[str]) -> list[SavedLogin]:
    """Take out the logins to clusters with any of these members; returns them. Raises ConfigError."""
    known, unwanted = _load(), set(endpoints)
    gone = [one for one in known if set(one.endpoints) & unwanted]
    if gone:
        _store([one for one in known if one not in gone])
    return gone


def _load() -> list[SavedLogin]:
    try:
        where = path()
        with open(where, encoding="utf-8") as file:
            mode = os.fstat(file.fileno())
            text = file.read()
    except FileNotFoundError:
        return []
    except ConfigError:
        return []  # no home, no logins
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{where}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if stat.S_IMODE(mode.st_mode) & 0o077:
        raise ConfigError(
            f"{where}: others than its owner can read it, and it holds tokens: chmod 600 {where}"
        )
    try:
        return [
            SavedLogin(
                endpoints=tuple(map(str, one["endpoints"])),
                tls=bool(one["tls"]),
                user=str(one["user"]),
                token=str(one["token"]),
            )
            for one in json.loads(text)["logins"]
        ]
    except (ValueError, KeyError, TypeError):
        raise ConfigError(f"{where}: holds no logins as connect-kv writes them: remove it") from None


def _store(logins: Iterable[SavedLogin]) -> None:
    where = path()
    beside = where.with_name(f".{where.name}.{os.getpid()}")
    try:
        where.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            beside.unlink()
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump({"logins": [asdict(one) for one in logins]}, file)
        beside.replace(where)
    except OSError as error:
        raise ConfigError(f"{where}: cannot be written: {error.strerror}") from None
