"""`serve` gives gRPC's core our settings where it serves clients; nobody else does, and nobody notices."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

LOOK = """
import os, sys
seen = []
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "grpc._cython":
            seen.append(os.environ.get("GRPC_EXPERIMENTS"))
sys.meta_path.insert(0, Finder())
%s
import grpc
print(seen[0], os.environ.get("GRPC_EXPERIMENTS"))
"""

SERVE = """
from connect_kv.cli import main
sys.argv = ["connect-kv", "serve", "--initial-cluster", "another=127.0.0.1:9", *%r]
try:
    main.main()
except SystemExit as end:
    assert end.code == 2
"""
PROGRAM = """
import connect_kv
import connect_kv.sync
from connect_kv.server.composition import KvServer
"""


@pytest.mark.parametrize(
    ("program", "given", "expected"),
    [
        (SERVE % (["--grpc-server", "grpcio"],), None, "-event_engine_client,-event_engine_listener None"),
        (
            SERVE % (["--grpc-server", "grpcio"],),
            "-event_engine_fork",
            "-event_engine_fork -event_engine_fork",
        ),
        (SERVE % ([],), None, "None None"),
        (PROGRAM, None, "None None"),
    ],
)
def test_only_serve_gives_the_core_settings_and_later_processes_do_not_see_them(
    program: str, given: str | None, expected: str
) -> None:
    environ = {key: value for key, value in os.environ.items() if not key.startswith("GRPC_")}
    if given is not None:
        environ["GRPC_EXPERIMENTS"] = given
    run = subprocess.run(
        [sys.executable, "-c", LOOK % program], env=environ, capture_output=True, text=True, timeout=60
    )
    assert run.stdout.strip() == expected
    assert "experiment" not in run.stderr, "a version of gRPC that does not know the settings"
