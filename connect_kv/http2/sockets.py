"""Sockets that listen."""

from __future__ import annotations

import asyncio
import socket
from typing import Final

BACKLOG: Final = 1024
"""Connections that wait to be accepted."""
_WILDCARDS: Final = frozenset(("", "0.0.0.0", "::"))


async def bind(host: str, port: int) -> list[socket.socket]:
    """Listen on every address of that host; port 0 takes one that is free on all of them.

    Any host is any host, whether it is written for version 4 or 6 of IP: clients of both are accepted, as
    etcd and gRPC do. Raises OSError.
    """
    if host in _WILDCARDS and socket.has_dualstack_ipv6():
        try:
            return [
                socket.create_server(("", port), family=socket.AF_INET6, backlog=BACKLOG, dualstack_ipv6=True)
            ]
        except OSError:
            if host == "::":
                raise  # else this machine may have no addresses of version 6, whatever it can do
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host or "0.0.0.0", port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    made: list[socket.socket] = []
    try:
        for family, address in dict.fromkeys((one[0], one[4][:2]) for one in found):
            chosen = made[0].getsockname()[1] if made else port
            made.append(socket.create_server((address[0], chosen), family=family, backlog=BACKLOG))
    except BaseException:
        for one in made:
            one.close()
        raise
    return made


def address(name: object) -> str:
    """``host:port`` of a socket's name; one of version 4 that came to a socket of version 6 is as it is."""
    if not isinstance(name, tuple):
        return str(name or "")
    host, port = str(name[0]).removeprefix("::ffff:"), name[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
