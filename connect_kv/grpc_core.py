"""How `serve` loads gRPC's core, where that serves clients: with the settings that suit one loop. It reads
them once, when it is loaded.

Its event engine hands each event of a connection from thread to thread; the poller before it does not:
a third of the switches between threads, and a fifth less processor time for a unary call
(docs/decisions/grpc-aio-and-uvloop.md). What the environment says already wins. This changes what a call
costs, never what it does; still a program of somebody else's is left alone, whether it is a client or has a
`Server`: its other uses of gRPC are not ours to change.
"""

from __future__ import annotations

import os
import sys
from importlib.metadata import version

_SETTINGS = {"GRPC_EXPERIMENTS": "-event_engine_client,-event_engine_listener"}
_KNOWN_UNTIL = (1, 85)
"""The last version that was seen to know these. One that does not would say so to every user."""


SUITES = "GRPC_SSL_CIPHER_SUITES"
loaded_suites = os.environ.get(SUITES, "")
"""Of TLS 1.2 that its core has, or gets from the environment; empty: its own choice."""


def silence() -> None:
    """Its core writes no lines of its own to standard error once it is loaded; its Python side logs as
    everybody does.
    """
    os.environ["GRPC_VERBOSITY"] = "NONE"


def load(*, suites: str = "") -> None:
    """Import gRPC under these settings; the environment is left as it was, for processes started later.

    `suites`: of TLS 1.2, see `credentials.grpc_suites`.
    """
    global loaded_suites
    known = tuple(map(int, version("grpcio").split(".")[:2])) <= _KNOWN_UNTIL
    added = {name: value for name, value in _SETTINGS.items() if known and name not in os.environ}
    if suites and "grpc" not in sys.modules:
        loaded_suites = suites
        os.environ[SUITES] = suites  # and left there: the core may read it as late as it needs it
    os.environ.update(added)
    try:
        import grpc.aio  # noqa: F401
    finally:
        for name in added:
            del os.environ[name]
