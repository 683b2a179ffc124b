"""Hosts as certificates name them."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from ipaddress import ip_address


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
