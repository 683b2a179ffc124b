"""connect-kv: fault-tolerant services in Python, and the replicated key/value service built so."""

from connect_kv.client.client import Client, connect
from connect_kv.credentials import Tls
from connect_kv.embed import Server, ServerHandle
from connect_kv.errors import (
    BadCall,
    ClientNotOpen,
    CommandFailed,
    Compacted,
    ConfigError,
    ConnectKvError,
    NotHeld,
    OutcomeUnknown,
    Overloaded,
    Refused,
    RefusedToStart,
    RequestTooLarge,
    SessionExpired,
    StorageError,
    Unavailable,
)
from connect_kv.framework.callbacks import CALLBACKS, Messages
from connect_kv.framework.cluster import Cluster, Node
from connect_kv.framework.examples import examples
from connect_kv.framework.replicated import Replicated, before, command, query
from connect_kv.framework.types import MessageType, ServiceType, Store

__all__ = [
    "CALLBACKS",
    "BadCall",
    "Client",
    "ClientNotOpen",
    "Cluster",
    "CommandFailed",
    "Compacted",
    "ConfigError",
    "ConnectKvError",
    "MessageType",
    "Messages",
    "Node",
    "NotHeld",
    "OutcomeUnknown",
    "Overloaded",
    "Refused",
    "RefusedToStart",
    "Replicated",
    "RequestTooLarge",
    "Server",
    "ServerHandle",
    "ServiceType",
    "SessionExpired",
    "StorageError",
    "Store",
    "Tls",
    "Unavailable",
    "before",
    "command",
    "connect",
    "examples",
    "query",
]
