"""The same phone book on disk: the callbacks receive a store, written together with the log's position.

CONNECT_KV_NAME=n1 python persistent_server.py     (and n2, n3: the members in Connect.toml)
"""

from connect_kv import Cluster, MessageType, Server, ServiceType, Store


def incoming(message: bytes) -> MessageType:
    return MessageType.READ if message.startswith(b"get ") else MessageType.WRITE


def on_read(message: bytes, store: Store) -> bytes:
    _, name = message.split(b" ", 1)
    return store.get(name) or b"unknown"


def on_write(message: bytes, store: Store) -> bytes:
    verb, name, number = message.split(b" ", 2)
    if verb != b"set":
        raise ValueError(f"expected 'get NAME' or 'set NAME NUMBER', got {verb.decode()!r}")
    before = store.get(name) or b"unknown"
    store.put(name, number)
    return before


if __name__ == "__main__":
    cluster = Cluster.from_file("Connect.toml")
    Server.from_callbacks(cluster, incoming, on_read, on_write, ServiceType.PERSISTENT).run()
