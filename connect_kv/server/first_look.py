"""What is looked at before a data directory is touched: a start that cannot succeed leaves nothing behind."""

from __future__ import annotations

import socket

from connect_kv.config import ServerConfig, check_own_entry, split_address
from connect_kv.errors import RefusedToStart
from connect_kv.server.tls import client_credentials, member_credentials


def look(config: ServerConfig) -> None:
    """Raises RefusedToStart for an address that is taken, ConfigError for a first start without
    sense, and for files of TLS that cannot be used.
    """
    for what, address in (
        *(("clients", address) for address in (config.listen_client, *config.also_listen_client)),
        ("peers", config.listen_peer),
        ("HTTP", config.listen_http),
    ):
        if address:
            _check_free(what, address)
    client_credentials(config), member_credentials(config)
    if not (config.data_dir / "log").exists():
        check_own_entry(config)


def _check_free(what: str, address: str) -> None:
    host, port = split_address(address, "listen")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, where = found[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
    except OSError as error:
        reason = error.strerror or str(error)
        raise RefusedToStart(f"cannot listen for {what} on {address}: {reason}") from error
