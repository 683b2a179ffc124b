"""Every command of two pages is run, section by section, against real processes on free ports."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from connect_kv.testing.ports import free_ports
from tests.cluster.conftest import needs
from tests.etcd import ENVIRONMENT, etcd_or_skip, packaged

DOCS = Path(__file__).parent.parent.parent / "docs"
PAGE = DOCS / "operations.md"
MOVING = DOCS / "moving-from-etcd.md"
BASE = "Three members"
ENDED = {"old": 143, "back": 143}
"""An etcd ends by the signal that stopped it."""
FROM_NOTHING = {BASE, "From one member to three"}

ADDRESS = re.compile(r"127\.0\.0\.1:(\d+)")
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
HARNESS = r"""
set -euo pipefail
mkdir -p run
finish() { for file in run/*.pid; do kill -KILL "$(cat "$file")" 2>/dev/null || true; done; }
trap finish EXIT
fail() { echo "FAILED: $*"; exit 1; }
start() {  # NAME HTTP-ADDRESS COMMAND...
  local name=$1 http=$2; shift 2
  "$@" >>"run/$name.log" 2>&1 & echo $! >"run/$name.pid"
  until curl -fs "http://$http/livez" >/dev/null || curl -fs "http://$http/health" >/dev/null; do
    kill -0 "$(cat "run/$name.pid")" 2>/dev/null || fail "$name ended"
    sleep 0.1
  done
}
ended() {  # NAME CODE
  local code=0
  wait "$(cat "run/$1.pid")" || code=$?
  [ "$code" = "$2" ] || fail "$1 ended with $code, not $2"
  rm "run/$1.pid"
}
prints() {  # WANTED PRINTED
  [[ "$2" == *"$1"* ]] || fail "expected '$1', printed '$2'"
}
ends_with() {  # CODE TEXT COMMAND...
  local code=0 wanted=$1 text=$2 said; shift 2
  said=$("$@" 2>&1) || code=$?
  [ "$code" = "$wanted" ] || fail "ended with $code, not $wanted: $said"
  prints "$text" "$said"
}
"""


def sections(page: Path = PAGE) -> Mapping[str, str]:
    """The commands of each section that has some, by its heading."""
    found = {}
    for part in re.split(r"^## ", page.read_text(), flags=re.MULTILINE)[1:]:
        heading, _, text = part.partition("\n")
        commands = "".join(BLOCK.findall(text))
        if commands:
            found[heading] = commands
    return found


def script(commands: str) -> str:
    """The same commands for bash: servers in the background, what comments say checked."""
    return HARNESS + "\n".join(_line(line) for line in commands.splitlines())


def _line(line: str) -> str:
    if match := re.fullmatch(r"# stop (\w+)", line):
        return f'kill -TERM "$(cat run/{match[1]}.pid)"; ended {match[1]} {ENDED.get(match[1], 0)}'
    if match := re.fullmatch(r"# kill (\w+)", line):
        return f'kill -KILL "$(cat run/{match[1]}.pid)"; ended {match[1]} 137'
    if match := re.fullmatch(r"# wait (\w+)", line):
        return f"ended {match[1]} 2"
    if match := re.fullmatch(r"(.*\S)\s+# ends with (\d+): (.+)", line):
        return f'ends_with {match[2]} "{match[3]}" {match[1]}'
    if match := re.fullmatch(r"(.*\S)\s+# prints (.+)", line):
        return f'prints "{match[2]}" "$({match[1]})"'
    if match := re.match(r"connect-kv serve --name (\w+) .*--listen-http (\S+)", line):
        return f"start {match[1]} {match[2]} {line}"
    if match := re.match(r"etcd --name (\w+) .*--listen-client-urls http://(\S+)", line):
        return f"start {match[1]} {match[2]} {line}"
    return line


def on_free_ports(text: str) -> str:
    """The same text with every port of loopback replaced by one that is free."""
    used = sorted(set(ADDRESS.findall(text)))
    free = dict(zip(used, free_ports(len(used)), strict=True))
    return ADDRESS.sub(lambda match: f"127.0.0.1:{free[match[1]]}", text)


@pytest.mark.parametrize("section", sections())
def test_commands_of(section: str, tmp_path: Path) -> None:
    needs("curl")
    commands = sections()[section]
    if "etcdctl" in commands:
        needs("etcdctl")
    if section not in FROM_NOTHING:
        commands = sections()[BASE] + commands
    run(commands, tmp_path)


@pytest.mark.parametrize("section", sections(MOVING))
def test_moving_from_etcd(section: str, tmp_path: Path) -> None:
    needs("curl")
    etcd_or_skip()
    run(sections(MOVING)[section], tmp_path)


def run(commands: str, tmp_path: Path) -> None:
    """As a person would type them; an etcd comes without the Python around it."""
    places = (packaged(), str(Path(sys.executable).parent), os.environ["PATH"])
    path = os.pathsep.join(filter(None, places))
    done = subprocess.run(
        ["bash", "-c", script(on_free_ports(commands))],
        cwd=tmp_path,
        env={**ENVIRONMENT, "PATH": path, "CONNECT_KV_TIMEOUT": "20"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    logs = "".join(f"--- {log.name}\n{log.read_text()[-2000:]}" for log in (tmp_path / "run").glob("*.log"))
    assert done.returncode == 0, f"{done.stdout}\n{logs}"


@pytest.mark.parametrize(
    "wrong",
    [
        "echo hello  # prints good-bye",
        "false",
        "true  # ends with 1: nothing",
        "sh -c 'exit 2'  # ends with 2: why",
    ],
)
def test_what_a_page_says_wrongly_is_noticed(wrong: str, tmp_path: Path) -> None:
    done = subprocess.run(["bash", "-c", script(wrong)], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 1


def test_the_page_has_the_sections_that_error_messages_promise() -> None:
    assert {"Replacing a disk", "Changing an address", "From one member to three", "Damage"} <= set(
        sections()
    )
