"""Which ports a local cluster uses, and that it keeps them: its members know each other by them."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from connect_kv.errors import ConfigError

FILE = "ports.json"


@dataclass(frozen=True, slots=True)
class Ports:
    """The three ports of a node: clients, peers, HTTP."""

    client: int
    peer: int
    http: int


def usual(count: int) -> list[Ports]:
    """2379 and the next two, then 22379, 32379 and so on."""
    firsts = [2379, *(10_000 * number + 2379 for number in range(2, count + 1))]
    return [Ports(first, first + 1, first + 2) for first in firsts]


def free(count: int) -> list[Ports]:
    """Ports on loopback that nobody listens on now."""
    sockets = [socket.socket() for _ in range(3 * count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        found = [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
    return [Ports(*found[3 * index : 3 * index + 3]) for index in range(count)]


def _checked(ports: object) -> Ports:
    """Raises ValueError, TypeError."""
    found = Ports(*ports)  # type: ignore[misc]
    for port in (found.client, found.peer, found.http):
        if type(port) is not int or not 0 < port < 65536:
            raise ValueError(f"{port!r} is no port")
    return found


def choose(
    directory: Path, count: int, any_free: bool, check: Callable[[list[Ports]], None] = lambda ports: None
) -> list[Ports]:
    """The ports of the cluster in `directory`: those it had before, if there was one.

    `check` may refuse them before the directory is touched. Raises ConfigError if it had another number of
    nodes, or the directory cannot be used.
    """
    file = directory / FILE
    try:
        if file.exists():
            before = [_checked(ports) for ports in json.loads(file.read_text())]
            if len(before) != count:
                raise ConfigError(f"{directory}: holds a cluster of {len(before)} nodes, not of {count}")
            check(before)
            return before
        chosen = free(count) if any_free else usual(count)
        check(chosen)
        directory.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps([[one.client, one.peer, one.http] for one in chosen]))
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from None
    except (ValueError, TypeError, RecursionError):
        raise ConfigError(f"{file}: expected the ports of each node; delete it to choose anew") from None
    return chosen


def check_free(nodes: list[Ports]) -> None:
    """Raises ConfigError naming the ports that are taken: whose they are would be taken for this cluster."""
    taken = []
    for ports in nodes:
        for port in (ports.client, ports.peer, ports.http):
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError:
                    taken.append(str(port))
    if taken:
        raise ConfigError(
            f"ports of 127.0.0.1 are in use, perhaps by another cluster: {', '.join(taken)}; "
            "stop that, or use --free-ports in another directory"
        )
