"""The commands of a page for bash: servers in the background, what comments and outputs say checked.

In a block of `sh`, a comment behind a command says what it does: `# prints TEXT`, `# ends with CODE: TEXT`,
`# goes on: NAME` (it stays in the foreground of a terminal of its own). `connect-kv serve --name NAME` and
`etcd --name NAME` go on as well. A line of its own ends what goes on: `# stop NAME`, `# kill NAME` (a member
of `connect-kv dev`, too); `# wait NAME` waits until it ends by itself with 2. In a block of `console` lines
with `$` are commands, and what follows is all that they print, with `...` for what is other each time.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from connect_kv.cli.ports import usual
from connect_kv.testing.ports import free_ports
from tests.etcd import ENVIRONMENT, packaged
from tests.pages.blocks import FILE, Block

ENDED = {"old": 143, "back": 143}
"""An etcd ends by the signal that stopped it."""
PORT = re.compile(r"(?<=127\.0\.0\.1:)\d+|\b[1-4]?23(?:79|80|81)\b")
DEFAULTS = (
    "env CONNECT_KV_LISTEN_CLIENT=127.0.0.1:2379 CONNECT_KV_LISTEN_PEER=127.0.0.1:2380"
    " CONNECT_KV_LISTEN_HTTP=127.0.0.1:2381"
)
"""The same as without, but with other ports once they are replaced."""
TIMEOUT = 240
"""Seconds for the commands of one page, or of one section."""
HARNESS = r"""
set -euo pipefail
export CONNECT_KV_ENDPOINTS=${CONNECT_KV_ENDPOINTS-127.0.0.1:2379}
mkdir -p run
finish() {
  for file in run/*.pid; do [ ! -e "$file" ] || kill -KILL -- -"$(cat "$file")" 2>/dev/null || true; done
  rm -f run/*.pid
}
trap finish EXIT
fail() { echo "FAILED: $*"; exit 1; }
start() {  # NAME HTTP-ADDRESS COMMAND...
  local name=$1 http=$2; shift 2
  launch "$name" "$@"
  until curl -fs "http://$http/livez" >/dev/null || curl -fs "http://$http/health" >/dev/null; do
    kill -0 "$(cat "run/$name.pid")" 2>/dev/null || fail "$name ended"
    sleep 0.1
  done
}
launch() {  # NAME COMMAND...
  local name=$1; shift
  setsid "$@" >>"run/$name.log" 2>&1 & echo $! >"run/$name.pid"
}
killed() {  # NAME, or one of the members that `connect-kv dev` started, which says their process ids
  if [ -e "run/$1.pid" ]; then kill -KILL "$(cat "run/$1.pid")"; ended "$1" 137; return; fi
  kill -KILL "$(sed -nE "s/^$1 .*pid ([0-9]+) .*/\1/p" run/*.log | tail -1)"
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
shows() {  # compares run/said with run/wanted, where ... stands for anything
  python3 - <<'COMPARE' || fail "the page shows something else"
import re, sys
wanted, said = (open(f"run/{name}").read().rstrip() for name in ("wanted", "said"))
pattern = r"[^\n]*".join(map(re.escape, wanted.split("...")))
pattern = re.sub(r"(?m)^\[\^\\n\]\*$\n?", r"(?:.*\n)*?.*", pattern)
if not re.fullmatch(pattern, re.sub(r"(?m)[ ]+$", "", said)):
    sys.exit(print(f"--- the page shows\n{wanted}\n--- printed\n{said}") or 1)
COMPARE
}
"""


def script(commands: str) -> str:
    """A block of `sh` as it is run."""
    return HARNESS + "\n".join(_line(line) for line in commands.splitlines())


def script_of(blocks: Iterable[Block]) -> str:
    """Blocks of several kinds, one after the other."""
    return HARNESS + "\n".join(_block(block) for block in blocks if not block.not_run)


def _block(block: Block) -> str:
    if block.file:
        folder = os.path.dirname(block.file) or "."
        return f"mkdir -p {folder}\n" + _written(block.file, FILE.sub("", block.text, count=1))
    match block.language:
        case "sh":
            return "\n".join(_line(line) for line in block.text.splitlines())
        case "console":
            return _session(block.text)
        case "python":
            return _written("run/block.py", block.text) + "python run/block.py"
        case _:
            return ""


def _written(name: str, text: str) -> str:
    return f"cat >{name} <<'END OF FILE'\n{text}END OF FILE\n"


def _session(text: str) -> str:
    """Commands and what they print."""
    lines = []
    for command, wanted in re.findall(r"^\$ (.+)\n((?:(?!\$ ).*\n)*)", text, re.MULTILINE):
        lines.append(f"{{ {command}\n}} >run/said 2>&1 || true\n" + _written("run/wanted", wanted) + "shows")
    return "\n".join(lines)


def _line(line: str) -> str:
    if match := re.fullmatch(r"# stop (\w+)", line):
        return f'kill -TERM "$(cat run/{match[1]}.pid)"; ended {match[1]} {ENDED.get(match[1], 0)}'
    if match := re.fullmatch(r"# kill (\w+)", line):
        return f"killed {match[1]}"
    if match := re.fullmatch(r"# wait (\w+)", line):
        return f"ended {match[1]} 2"
    if match := re.fullmatch(r"(.*\S)\s+# ends with (\d+): (.+)", line):
        return f'ends_with {match[2]} "{match[3]}" {match[1]}'
    if match := re.fullmatch(r"(.*\S)\s+# prints (.+)", line):
        return f'prints "{match[2]}" "$({match[1]})"'
    if match := re.fullmatch(r"(.*\S)\s+# goes on: (\w+)", line):
        alone = match[1].startswith("connect-kv serve")
        if alone and "--listen-client" not in line and "--config" not in line:
            return f"start {match[2]} 127.0.0.1:2381 {DEFAULTS} {match[1]}"
        return f"launch {match[2]} env {match[1]}"
    if match := re.match(r"connect-kv serve --name (\w+) .*--listen-http (\S+)", line):
        return f"start {match[1]} {match[2]} {line}"
    if match := re.match(r"etcd --name (\w+) .*--listen-client-urls http://(\S+)", line):
        return f"start {match[1]} {match[2]} {line}"
    return line


def on_free_ports(text: str, directory: Path) -> str:
    """The same text with other ports: the usual ones may be in use. `connect-kv dev` finds them as well."""
    first = [port for one in usual(4) for port in (one.client, one.peer, one.http)]
    used = sorted({*PORT.findall(text), *map(str, first)})
    free = dict(zip(used, map(str, free_ports(len(used))), strict=True))
    for nodes in re.findall(r"connect-kv dev(?: --nodes (\d))?", text):
        (directory / "connect-kv.dev").mkdir(exist_ok=True)
        ports = [(one.client, one.peer, one.http) for one in usual(int(nodes or 3))]
        found = [[int(free[str(port)]) for port in one] for one in ports]
        (directory / "connect-kv.dev" / "ports.json").write_text(json.dumps(found))
    return PORT.sub(lambda found: free[found.group()], text)


def run(commands: str, directory: Path) -> None:
    """As a person would type them; an etcd comes without the Python around it.

    `commands`: what `script` or `script_of` made of a page.
    """
    places = (packaged(), str(Path(sys.executable).parent), os.environ["PATH"])
    path = os.pathsep.join(filter(None, places))
    words = ["bash", "-c", on_free_ports(commands, directory)]
    environment = {**ENVIRONMENT, "PATH": path, "CONNECT_KV_TIMEOUT": "20", "COLUMNS": "160"}
    code: int | str
    with (directory / "said").open("wb") as said:
        bash = subprocess.Popen(
            words, cwd=directory, env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=said
        )
        try:
            code = bash.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            code = "not within its time"
        finally:
            bash.kill()
            bash.wait()
            _end_what_goes_on(directory)
    logs = "".join(f"--- {log.name}\n{log.read_text()[-2000:]}" for log in (directory / "run").glob("*.log"))
    assert code == 0, f"{code}: {(directory / 'said').read_text()}\n{logs}"


def _end_what_goes_on(directory: Path) -> None:
    """Whatever the script started and could not end."""
    for file in (directory / "run").glob("*.pid"):
        with contextlib.suppress(ProcessLookupError, ValueError):
            os.killpg(int(file.read_text()), signal.SIGKILL)
