"""A node starts without what the other commands need, and the list of commands needs none of them."""

import json
import subprocess
import sys

import click
import pytest

from connect_kv.cli.main import COMMANDS, group

SERVE = "import connect_kv.cli.main, connect_kv.cli.serve, connect_kv.server.process"
HELP = "from connect_kv.cli.main import group; group.main(['--help'], standalone_mode=False)"
TELL = "import sys, json; print(json.dumps(list(sys.modules)), file=sys.stderr)"


def loaded(code: str) -> set[str]:
    """The modules that are there after `code` has run in a new process."""
    told = subprocess.run(
        [sys.executable, "-c", f"{code}\n{TELL}"], capture_output=True, text=True, check=True
    )
    return set(json.loads(told.stderr))


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_can_be_loaded_by_its_name(name: str) -> None:
    command = group.get_command(click.Context(group), name)
    assert command is not None
    assert command.name == name


def test_help_lists_all_of_them() -> None:
    assert group.list_commands(click.Context(group)) == sorted(COMMANDS)
    assert group.get_command(click.Context(group), "unheard-of") is None
    lines = [line.split() for line in group.get_help(click.Context(group)).splitlines()]
    for name, (_, text) in COMMANDS.items():
        assert [name, *text.split()] in lines


def test_serving_loads_no_simulator_terminal_http_or_grpc() -> None:
    """Together these took as much processor time as all the rest of a start."""
    found = loaded(SERVE)
    assert "connect_kv.server.process" in found
    assert found.isdisjoint(
        {"aiohttp", "grpc", "rich", "connect_kv.testing.simulation.world", "connect_kv.bench.load"}
    )


def test_the_list_of_commands_loads_none_of_them_and_no_grpc() -> None:
    """It was ready after 0.7 s, with everything loaded, on a machine where it now takes less than 0.2."""
    found = loaded(HELP)
    commands = {name for name in found if name.startswith("connect_kv.cli.")}
    assert commands == {"connect_kv.cli.main", "connect_kv.cli.settings", "connect_kv.cli.quantities"}
    assert found.isdisjoint({"grpc", "uvloop", "rich", "plyvel", "aiohttp"})
