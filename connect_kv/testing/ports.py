"""Ports for processes that are killed and started again, and must find them free then."""

from __future__ import annotations

import random
import socket
from pathlib import Path

_LOWEST = 10_000
_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_USUAL = 32_768
"""From here on Linux gives ports to whoever asks for any; other systems begin higher."""

_given: set[int] = set()


def free_ports(count: int) -> list[int]:
    """Ports on loopback that nobody listens on now, and that the system gives nobody.

    A node keeps its ports while it is dead. One that the system had chosen could belong to any client's
    connection, or to another test's server, by the time the node is started again. None is returned twice.
    """
    end = _first_ephemeral()
    chooser = random.SystemRandom()
    found: list[int] = []
    while len(found) < count:
        port = chooser.randrange(_LOWEST, end)
        if port not in _given and _is_free(port):
            _given.add(port)
            found.append(port)
    return found


def _first_ephemeral() -> int:
    try:
        first = int(_RANGE.read_text().split()[0])
    except OSError:
        return _USUAL
    return first if first > _LOWEST + 1000 else _USUAL


def _is_free(port: int) -> bool:
    with socket.socket() as one:
        try:
            one.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
