"""What is looked at before a data directory is touched: a start that cannot succeed leaves nothing behind."""

from __future__ import annotations

from connect_kv.config import ServerConfig, check_own_entry
from connect_kv.hosts import check_free
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
            check_free(what, address)
    client_credentials(config), member_credentials(config)
    if not (config.data_dir / "log").exists():
        check_own_entry(config)
