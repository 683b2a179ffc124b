"""Certificates that nobody signed, in the data directory: encryption without trust."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from connect_kv.config import ANY_HOST, ServerConfig, split_address
from connect_kv.errors import ConfigError

if TYPE_CHECKING:
    from connect_kv.authority import Pair

logger = logging.getLogger(__name__)

FOLDER = "fixtures"
"""In the data directory, with ``client`` and ``peer``; etcd's names."""
YEAR_DAYS = 365


def with_self_signed(config: ServerConfig) -> ServerConfig:
    """That configuration, and where it says so with certificates and keys that are there, or are made now.

    They are kept over restarts, and replaced when they have expired: nobody could connect any more. Raises
    ConfigError for files that cannot be read or written.
    """
    if config.auto_tls and not _given("--auto-tls", config.cert_file):
        hosts = _hosts(config.listen_client, config.client_address, config.listen_http)
        pair = _kept(config, "client", hosts)
        config = replace(config, cert_file=pair.cert, key_file=pair.key)
    if config.peer_auto_tls and not _given("--peer-auto-tls", config.peer_cert_file):
        pair = _kept(config, "peer", _hosts(config.listen_peer, config.peer_address))
        config = replace(config, peer_cert_file=pair.cert, peer_key_file=pair.key)
    return config


def _given(option: str, cert: Path | None) -> bool:
    if cert is not None:
        logger.warning(f"{option} is ignored: there is a certificate", extra={"file": str(cert)})
    return cert is not None


def _kept(config: ServerConfig, use: str, hosts: Iterable[str]) -> Pair:
    from connect_kv.authority import Pair, make_self_signed  # only those who use TLS load what makes it

    folder = config.data_dir / FOLDER / use
    found = Pair(cert=folder / "cert.pem", key=folder / "key.pem")
    if found.cert.exists() and found.key.exists():
        if not _expired(found.cert):
            return found
        logger.warning(
            "a self-signed certificate has expired and is made anew", extra={"file": str(found.cert)}
        )
    # Half of a pair is of no use, and is what a start that was killed may leave.
    for path in (found.cert, found.key):
        with suppress(FileNotFoundError):
            path.unlink()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return make_self_signed(found, tuple(hosts), days=config.self_signed_cert_validity * YEAR_DAYS)


def _expired(cert: Path) -> bool:
    from connect_kv.certificates import BadCertificate, expiry, load

    try:
        return expiry(load(cert.read_bytes())[0]) <= time.time()
    except OSError as error:
        raise ConfigError(f"certificate {cert}: cannot be read: {error.strerror}") from None
    except BadCertificate as error:
        raise ConfigError(f"certificate {cert}: {error}; remove it, and another is made") from None


def _hosts(*addresses: str) -> list[str]:
    """Names and addresses it is reached at, so that who trusts just this certificate can verify it."""
    hosts = [split_address(address, "listen")[0] for address in addresses if address]
    found = [host for host in hosts if host not in ANY_HOST]
    return list(dict.fromkeys([*found, socket.gethostname(), "localhost", "127.0.0.1", "::1"]))
