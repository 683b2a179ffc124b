"""Hosts and ports, as addresses and certificates name them."""

from __future__ import annotations

import re
import socket
from collections.abc import Set as AbstractSet
from ipaddress import ip_address

from connect_kv.errors import RefusedToStart

_PORT = re.compile(r"[0-9]{1,5}")


def split_address(text: str) -> tuple[str, int]:
    """``host:port`` in two, the brackets of an IPv6 address left out. Raises ValueError."""
    host, _, port = text.rpartition(":")
    if not host or not _PORT.fullmatch(port) or int(port) > 65535:
        raise ValueError(f"{text!r}: expected HOST:PORT")
    return host.strip("[]"), int(port)


def check_free(what: str, address: str) -> None:
    """Raise RefusedToStart, with the system's reason, if `address` cannot be listened on for `what`.

    Waits for the resolver.
    """
    host, port = split_address(address)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, where = found[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
    except OSError as error:
        raise RefusedToStart(f"cannot listen for {what} on {address}: {error.strerror or error}") from error


def plain_host(host: str) -> str:
    """Addresses without brackets in their shortest form, names in lower case."""
    bare = host.strip("[]")
    try:
        return str(ip_address(bare))
    except ValueError:
        return bare.lower().rstrip(".")


def names_host(names: AbstractSet[str], host: str) -> bool:
    """Whether one of the names is that host's; ``*`` at its head stands for one label (RFC 6125, 6.4.3)."""
    wanted = plain_host(host)
    _, _, parent = wanted.partition(".")
    return wanted in names or (bool(parent) and f"*.{parent}" in names)
