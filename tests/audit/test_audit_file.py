"""The file of the audit log: whatever its disk does, nobody waits for it, and what is lost is said."""

from __future__ import annotations

import json
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from connect_kv.errors import ConfigError
from connect_kv.server.audit_file import AuditFile


@contextmanager
def writing(path: Path, **limits: Any) -> Iterator[AuditFile]:
    file = AuditFile(path, wall=time.time_ns, again=0.01, **limits)
    try:
        yield file
    finally:
        file.close()


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.002)


def line(number: int) -> bytes:
    return json.dumps({"n": number}).encode() + b"\n"


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(one) for one in path.read_text().splitlines()]


def test_lines_come_in_order_into_a_file_that_only_its_owner_reads(tmp_path: Path) -> None:
    path = tmp_path / "audit"
    with writing(path) as file:
        for number in range(1000):
            file.write(line(number), important=False)
    assert [one["n"] for one in read(path)] == list(range(1000))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not any(one.name == "audit" for one in threading.enumerate())


def test_it_goes_on_behind_what_is_there_on_a_line_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "audit"
    path.write_bytes(b'{"n":1}\n{"n":')
    with writing(path) as file:
        file.write(line(2), important=False)
    assert path.read_bytes() == b'{"n":1}\n{"n":\n{"n": 2}\n'


def test_where_there_can_be_none_the_member_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"audit_log: .*missing/audit: No such file or directory"):
        AuditFile(tmp_path / "missing" / "audit", wall=time.time_ns)


@pytest.mark.parametrize("told", [True, False])
def test_a_file_that_was_moved_away_is_made_anew(tmp_path: Path, told: bool) -> None:
    path = tmp_path / "audit"
    with writing(path) as file:
        file.write(line(1), important=False)
        until(lambda: file.written == 1)
        path.rename(tmp_path / "audit.1")
        if told:
            file.reopen()
            until(path.exists)
        file.write(line(2), important=False)
    assert [one["n"] for one in read(tmp_path / "audit.1")] == [1]
    assert [one["n"] for one in read(path)] == [2]


def test_a_full_disk_loses_lines_and_says_how_many_once_it_has_room(tmp_path: Path) -> None:
    path, good = tmp_path / "audit", tmp_path / "good"
    path.symlink_to("/dev/full")
    with writing(path, most_lines=100) as file:
        for number in range(1000):
            file.write(line(number), important=False)
        until(lambda: file.failures)
        until(lambda: _has_dropped(file))
        good.touch()
        (tmp_path / "new").symlink_to(good)
        (tmp_path / "new").rename(path)
        until(lambda: good.stat().st_size)
        until(lambda: not file._lines)
    found = read(good)
    lost = sum(one.get("dropped", 0) for one in found)
    kept = [one["n"] for one in found if "n" in one]
    assert lost == file.dropped > 0
    assert kept == sorted(kept)
    assert kept[:50] == list(range(50)), "what waits is older than what is lost"


def _has_dropped(file: AuditFile) -> bool:
    file.write(line(-1), important=False) if file.dropped == 0 else None
    return file.dropped > 0


def test_a_slow_disk_holds_nobody_and_keeps_room_for_what_is_important(tmp_path: Path) -> None:
    path = tmp_path / "audit"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    file = AuditFile(path, wall=time.time_ns, most_lines=400, again=0.01)
    try:
        begun = time.monotonic()
        for _ in range(20_000):
            file.write(b"x" * 99 + b"\n", important=False)
        assert time.monotonic() - begun < 2, "nobody waits"
        assert file.dropped > 10_000
        before = file.dropped
        for number in range(50):
            file.write(line(number), important=True)
        assert file.dropped == before
        found = b""
        while b'{"n": 49}' not in found:
            try:
                found += os.read(reader, 1 << 16)
            except BlockingIOError:
                time.sleep(0.001)
        assert found.count(b'{"n"') == 50
        assert b'"dropped":' in found
    finally:
        os.set_blocking(reader, True)
        draining = threading.Thread(target=_drain, args=(reader,))
        draining.start()
        file.close()
        draining.join()
        os.close(reader)


def _drain(reader: int) -> None:
    while os.read(reader, 1 << 16):
        pass
