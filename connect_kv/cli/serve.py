"""serve: one node in this process."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TypeVar

import click

F = TypeVar("F", bound=Callable[..., object])

OPTIONS: tuple[tuple[str, str, str, str], ...] = (
    ("name", "name", "NAME", "This member's name.  [default: default]"),
    ("data-dir", "data_dir", "DIR", "Where it keeps everything.  [default: ./connect-kv.data]"),
    ("listen-client", "listen_client", "HOST:PORT", "For clients.  [default: 127.0.0.1:2379]"),
    ("listen-peer", "listen_peer", "HOST:PORT", "For other members.  [default: 127.0.0.1:2380]"),
    ("listen-http", "listen_http", "HOST:PORT", "Health and metrics.  [default: 127.0.0.1:2381]"),
    (
        "advertise-client",
        "advertise_client",
        "HOST:PORT",
        "What clients are told.  [default: --listen-client]",
    ),
    ("advertise-peer", "advertise_peer", "HOST:PORT", "What members dial.  [default: --listen-peer]"),
    ("initial-cluster", "initial_cluster", "NAME=HOST:PORT,...", "All members.  [default: only this one]"),
    ("initial-cluster-state", "initial_cluster_state", "new|existing", "Found a cluster, or join one."),
    ("heartbeat-ms", "heartbeat_ms", "MS", "Leader's heartbeat.  [default: 100]"),
    ("election-ms", "election_ms", "MS", "Silence before an election.  [default: 1000]"),
    ("max-request-bytes", "max_request_bytes", "BYTES", "Largest request.  [default: 1572864]"),
    ("snapshot-count", "snapshot_count", "N", "Entries between compactions of the log.  [default: 10000]"),
    ("catch-up-entries", "catch_up_entries", "N", "Entries kept for slow members.  [default: 5000]"),
    ("max-learners", "max_learners", "N", "Learners there may be at once.  [default: 1]"),
    ("quota-bytes", "quota_bytes", "BYTES", "Space for keys and values.  [default: 2 GiB]"),
    (
        "auto-compaction",
        "auto_compaction",
        "KEEP",
        "History to keep: 12h, 30m, or 5000 revisions.  [default: all]",
    ),
    (
        "corruption-check-seconds",
        "corruption_check_seconds",
        "SECONDS",
        "How often the members' data is compared.  [default: 43200]",
    ),
    ("log-level", "log_level", "LEVEL", "debug, info, warning or error.  [default: info]"),
    ("log-format", "log_format", "FORMAT", "text or json.  [default: text]"),
)
"""Flag, key of ServerConfig, what it takes, help. The checking is ServerConfig's."""


def _with_options(function: F) -> F:
    for flag, key, takes, text in reversed(OPTIONS):
        variable = f"CONNECT_KV_{key.upper()}"
        click.option(f"--{flag}", key, metavar=takes, help=f"{text}  [env: {variable}]")(function)
    return function


@click.command()
@_with_options
@click.option(
    "--machine",
    "machines",
    metavar="NAME=module:Class",
    multiple=True,
    help="Host this replicated class; may be given several times.  [env: CONNECT_KV_MACHINES]",
)
@click.option(
    "--config",
    metavar="FILE",
    envvar="CONNECT_KV_CONFIG",
    help="A Connect.toml; options and environment win over it.  [env: CONNECT_KV_CONFIG]",
)
def serve(config: str | None, **options: object) -> None:
    """Run one node until it is told to stop.

    Without any option it is a cluster of its own on 127.0.0.1, with its data in ./connect-kv.data.
    """
    from connect_kv import grpc_core

    grpc_core.load()  # before anything loads gRPC by itself

    # Imported here: the other commands start faster without a server.
    from connect_kv.config import load
    from connect_kv.framework.cluster import Cluster
    from connect_kv.server.process import run

    file = None
    if config is not None:
        name = options["name"]
        cluster = Cluster.from_file(config, name=name if isinstance(name, str) else None)
        file = cluster.server_settings()
    sys.exit(run(load(options, os.environ, file, file_name=config or "Connect.toml")))
