"""The unit file, without a systemd that runs: what it says, and whether a member can live with it."""

from __future__ import annotations

import configparser
import ctypes
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from connect_kv.server.service_manager import ServiceManager
from connect_kv.testing.ports import free_ports

PACKAGING = Path(__file__).parents[2] / "packaging" / "systemd"
UNIT = PACKAGING / "connect-kv.service"

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="SKIPPED: no systemd-analyze"
)


def settings() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[tuple[Path, socket.socket]]:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        one.bind(str(path))
        one.settimeout(30)
        yield path, one


def start(
    tmp_path: Path, notify: Path, before: Callable[[], None] | None = None, *trace: str
) -> subprocess.Popen[bytes]:
    client, peer, http = free_ports(3)
    environ = os.environ | {"NOTIFY_SOCKET": str(notify), "WATCHDOG_USEC": "200000"}
    environ.pop("WATCHDOG_PID", None)
    return subprocess.Popen(
        [*trace, sys.executable, "-m", "connect_kv.cli.main", "serve", "--data-dir", str(tmp_path / "data"),
         "--listen-client", f"127.0.0.1:{client}", "--listen-peer", f"127.0.0.1:{peer}",
         "--listen-http", f"127.0.0.1:{http}"],
        env=environ, preexec_fn=before, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


@needs_systemd
def test_systemd_understands_it_and_finds_it_closed(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/connect-kv/bin/connect-kv", sys.executable))
    verified = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, timeout=60)
    said = [line for line in verified.stderr.splitlines() if UNIT.name in line]
    assert (verified.returncode, said) == (0, [])
    scored = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", unit], capture_output=True, text=True, timeout=60
    )
    level = re.search(r"Overall exposure level for \S+: ([0-9.]+)", scored.stdout)
    assert level is not None
    assert float(level[1]) <= 1.5


@pytest.mark.cluster
def test_a_member_says_when_it_serves_that_it_lives_and_that_it_stops(
    tmp_path: Path, manager: tuple[Path, socket.socket]
) -> None:
    path, told = manager
    member = start(tmp_path, path)
    try:
        assert told.recv(100) == b"READY=1"
        assert [told.recv(100) for _ in range(3)] == [b"WATCHDOG=1"] * 3
        member.send_signal(signal.SIGTERM)
        while told.recv(100) != b"STOPPING=1":
            pass
        assert member.wait(30) == 0
    finally:
        member.kill()
        member.wait()


def forbid_new_code() -> None:
    """What MemoryDenyWriteExecute does: memory never becomes code (PR_SET_MDWE, Linux 6.3)."""
    if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0):
        os._exit(77)


@pytest.mark.cluster
def test_a_member_makes_no_code_at_run_time(tmp_path: Path, manager: tuple[Path, socket.socket]) -> None:
    assert settings()["MemoryDenyWriteExecute"] == ["yes"]
    path, told = manager
    member = start(tmp_path, path, forbid_new_code)
    try:
        told.settimeout(5)
        while member.poll() is None:
            try:
                assert told.recv(100) == b"READY=1"
                break
            except TimeoutError:
                continue
        if member.poll() == 77:
            pytest.skip("SKIPPED: this kernel has no PR_SET_MDWE")
        assert member.poll() is None
        member.send_signal(signal.SIGTERM)
        assert member.wait(30) == 0
    finally:
        member.kill()
        member.wait()


@needs_systemd
@pytest.mark.cluster
@pytest.mark.skipif(shutil.which("strace") is None, reason="SKIPPED: no strace")
def test_a_member_asks_for_nothing_that_the_unit_forbids(
    tmp_path: Path, manager: tuple[Path, socket.socket]
) -> None:
    path, told = manager
    calls = tmp_path / "calls"
    member = start(
        tmp_path, path, None, "strace", "--daemonize", "--follow-forks", "--quiet=all", "--output", str(calls)
    )
    try:
        assert told.recv(100) == b"READY=1"
        member.send_signal(signal.SIGTERM)
        member.wait(30)
    finally:
        member.kill()
        member.wait()
    used = {
        match[1] for match in re.finditer(r"^\d+ +(?:<\.\.\. )?(\w+)[( ]", calls.read_text(), re.MULTILINE)
    }
    assert "fdatasync" in used
    listed = subprocess.run(
        ["systemd-analyze", "syscall-filter", "--no-pager"], capture_output=True, text=True, timeout=60
    )
    groups = groups_of(listed.stdout)
    allowed = groups["@system-service"] - groups["@privileged"] - groups["@resources"]
    assert used - allowed - {"resumed"} == set()


def groups_of(text: str) -> dict[str, set[str]]:
    """Names of system calls by group, groups within groups resolved."""
    direct: dict[str, set[str]] = {}
    current: set[str] = set()
    for line in text.splitlines():
        if line.startswith("@"):
            current = direct.setdefault(line.strip(), set())
        elif line.startswith(" ") and not line.strip().startswith("#"):
            current.add(line.strip())

    def whole(name: str) -> set[str]:
        return {one for part in direct[name] for one in (whole(part) if part.startswith("@") else {part})}

    return {name: whole(name) for name in direct}


def test_settings_that_belong_together() -> None:
    configparser.ConfigParser(strict=False, interpolation=None).read(UNIT)
    found = settings()
    assert found["Type"] == ["notify"]
    assert found["RestartPreventExitStatus"] == ["2"]
    user = found["User"][0]
    assert f"u {user} " in (PACKAGING / "connect-kv.sysusers").read_text()
    assert f" {user} " in (PACKAGING / "connect-kv.tmpfiles").read_text()


async def test_without_a_manager_nothing_is_said() -> None:
    manager = ServiceManager({}, 1)
    manager.ready()
    manager.stopping()


async def test_a_watchdog_of_another_process_is_not_fed(
    tmp_path: Path, manager: tuple[Path, socket.socket]
) -> None:
    path, told = manager
    one = ServiceManager({"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}, 2)
    one.ready()
    one.stopping()
    assert [told.recv(100), told.recv(100)] == [b"READY=1", b"STOPPING=1"]
