"""A phone book as callbacks: `incoming` says what a message is, `on_read` and `on_write` answer it.

CONNECT_KV_NAME=n1 python server.py     (and n2, n3: the members in Connect.toml)
"""

import json
from collections.abc import Iterable

from connect_kv import Cluster, MessageType, Server, ServiceType

numbers: dict[str, str] = {}


def incoming(message: bytes) -> MessageType:
    """``get NAME`` reads, everything else writes."""
    return MessageType.READ if message.startswith(b"get ") else MessageType.WRITE


def on_read(message: bytes) -> bytes:
    """Runs on one member, after every write acknowledged before."""
    _, name = message.decode().split(" ", 1)
    return numbers.get(name, "unknown").encode()


def on_write(message: bytes) -> bytes:
    """``set NAME NUMBER``. Runs on every member, in the same order; what it raises reaches the caller."""
    verb, name, number = message.decode().split(" ", 2)
    if verb != "set":
        raise ValueError(f"expected 'get NAME' or 'set NAME NUMBER', got {verb!r}")
    before = numbers.get(name, "unknown")
    numbers[name] = number
    return before.encode()


def snapshot() -> Iterable[bytes]:
    """The whole state in pieces: with it the log can be compacted."""
    return [json.dumps(numbers).encode()]


def restore(chunks: Iterable[bytes]) -> None:
    """Replace the state."""
    numbers.clear()
    numbers.update(json.loads(b"".join(chunks)))


if __name__ == "__main__":
    Server.from_callbacks(
        Cluster.from_file("Connect.toml"),
        incoming,
        on_read,
        on_write,
        ServiceType.IN_MEMORY,
        snapshot=snapshot,
        restore=restore,
    ).run()
