"""A node starts without what the other commands need."""

import json
import subprocess
import sys

import click
import pytest

from connect_kv.cli.main import COMMANDS, group

LOADED = "import connect_kv.cli.main, connect_kv.cli.serve, sys, json; print(json.dumps(list(sys.modules)))"


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_can_be_loaded_by_its_name(name: str) -> None:
    command = group.get_command(click.Context(group), name)
    assert command is not None
    assert command.name == name


def test_help_lists_all_of_them() -> None:
    assert group.list_commands(click.Context(group)) == sorted(COMMANDS)
    assert group.get_command(click.Context(group), "unheard-of") is None


def test_serving_loads_no_simulator_terminal_or_http() -> None:
    """Together these took as much processor time as all the rest of a start."""
    told = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)
    loaded = set(json.loads(told.stdout))
    assert "connect_kv.serving.run" in loaded
    assert loaded.isdisjoint({"aiohttp", "rich", "connect_kv.sim.world", "connect_kv.bench.load"})
