"""gRPC's core is loaded with our settings, once, and nothing else notices."""

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
import connect_kv
connect_kv.Client
import grpc
print(seen[0], os.environ.get("GRPC_EXPERIMENTS"))
"""


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, "-event_engine_client,-event_engine_listener None"),
        ("-event_engine_fork", "-event_engine_fork -event_engine_fork"),
    ],
)
def test_the_core_sees_the_settings_and_later_processes_do_not(given: str | None, expected: str) -> None:
    environ = {key: value for key, value in os.environ.items() if not key.startswith("GRPC_")}
    if given is not None:
        environ["GRPC_EXPERIMENTS"] = given
    run = subprocess.run(
        [sys.executable, "-c", LOOK], env=environ, capture_output=True, text=True, timeout=60
    )
    assert run.stdout.strip() == expected
    assert run.stderr == "", "a version of gRPC that does not know the settings"
