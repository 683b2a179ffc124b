"""What takes long says so, on standard error alone; what does not says nothing."""

from __future__ import annotations

import io
import re
import sys
import time

import pytest

from connect_kv.cli import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "QUIET_SECONDS", 0.02)
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.02)


def stderr(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO) -> io.StringIO:
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


def until_said(stream: io.StringIO, pattern: str) -> None:
    end = time.monotonic() + 10
    while not re.search(pattern, stream.getvalue()):
        assert time.monotonic() < end, f"{pattern} is not in {stream.getvalue()!r}"
        time.sleep(0.005)


@pytest.mark.usefixtures("impatient")
def test_lines_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    said = stderr(monkeypatch, io.StringIO())
    with progress.bar("saving x", quiet=False) as update:
        until_said(said, r"^saving x: 0 s so far\n")
        update(1_500_000, 3_000_000)
        until_said(said, r"saving x: 0 s so far, 1\.5 MB of 3\.0 MB\n")
    assert "\x1b" not in said.getvalue()
    with progress.counting("operations", 10, quiet=False) as count:
        count(7)
        until_said(said, r"operations: 0 s so far, 7 of 10\n")
    with progress.waiting("copying", quiet=False, every=0.01) as say:
        until_said(said, "copying: 0 s so far\n")
        say("copied 5 keys")
        until_said(said, "copied 5 keys: 0 s so far\n")


@pytest.mark.usefixtures("impatient")
def test_a_bar_on_a_terminal_that_is_gone_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    said = stderr(monkeypatch, Terminal())
    with progress.bar("saving [x]", quiet=False) as update:
        update(1_500_000, 3_000_000)
        until_said(said, r"saving \[x\].*1\.5/3\.0")
    assert said.getvalue().endswith("\x1b[2K"), "the line is erased"
    with progress.waiting("hashing", quiet=False):
        until_said(said, "hashing")


def test_nothing_is_said_of_what_is_soon_done_or_when_a_program_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = stderr(monkeypatch, io.StringIO())
    with progress.bar("saving x", quiet=False) as update:
        update(1, 2)
    monkeypatch.setattr(progress, "QUIET_SECONDS", 0.0)
    with progress.bar("saving x", quiet=True) as update:
        update(1, 2)
    assert not said.getvalue()


@pytest.mark.usefixtures("impatient")
def test_it_ends_with_the_work_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    said = stderr(monkeypatch, io.StringIO())

    def fail() -> None:
        with progress.waiting("hashing", quiet=False):
            until_said(said, "hashing")
            raise OSError("no")

    with pytest.raises(OSError, match="no"):
        fail()
    lines = said.getvalue()
    time.sleep(0.1)
    assert said.getvalue() == lines
