"""The file of the audit log: written by a thread of its own, so that no disk ever holds the loop.

The rule when the disk is full or slow: calls go on, and lines that find no room are lost; they are counted,
and the next line that can be written says how many. The last quarter of the room is for the important ones,
failed logins and refused rights. Lines are not fsynced: what a process had written survives its end, not that
of the machine.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from connect_kv.errors import ConfigError

logger = logging.getLogger(__name__)

MOST_LINES = 8192
"""Lines that may wait to be written; twice as many while an attempt is under way."""
MOST_BYTES = 4 << 20
"""Bytes of the lines that may wait to be written."""
_AGAIN_SECONDS = 1.0
"""Seconds between two attempts at a disk that takes nothing."""
_GATHER_SECONDS = 0.02
"""Seconds from the first waiting line to writing all that has come by then."""
_SAY_SECONDS = 60.0
"""Seconds between two log lines about a disk that takes nothing."""
_LAST_SECONDS = 2.0
"""Seconds that the end of the process waits for what is left to write."""


class AuditFile:
    """A `services.audit.Trail` that ends in a file, readable by its owner alone. One thread writes, the loop
    adds.
    """

    def __init__(
        self,
        path: Path,
        *,
        wall: Callable[[], int],
        most_lines: int = MOST_LINES,
        most_bytes: int = MOST_BYTES,
        again: float = _AGAIN_SECONDS,
    ) -> None:
        """Opens it, to append. Raises ConfigError where that is not possible."""
        self._path = path
        self._wall = wall
        self._most_lines, self._most_bytes = most_lines, most_bytes
        self._again = again
        self._lines: deque[bytes] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._closing = self._reopen = False
        self._torn: bool
        """The last line in the file may have no end."""
        self.written = self.dropped = self.failures = 0
        """Lines; lines without room; attempts that the system refused."""
        self._given = 0
        self._told = 0
        """Of the dropped ones, those that the file says."""
        self._warned = -_SAY_SECONDS
        try:
            self._file = _open(path)
            self._torn = _cut_off(path)
        except OSError as error:
            raise ConfigError(f"audit_log: {path}: {error.strerror or error}") from error
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
        self._thread.start()

    def write(self, line: bytes, *, important: bool) -> None:
        """Add a line, or drop it; never waits for the disk."""
        with self._changed:
            self._given += 1
            # What is not important leaves a quarter of the room.
            share = 4 if important else 3
            if (
                len(self._lines) >= self._most_lines * share // 4
                or self._bytes + len(line) > self._most_bytes * share // 4
            ):
                self.dropped += 1
                return
            self._lines.append(line)
            self._bytes += len(line)
            if len(self._lines) == 1:
                self._changed.notify()

    def flush(self) -> None:
        """Wait until what was given is written or lost, for a moment at most. Not for the loop."""
        with self._changed:
            given = self._given
            self._changed.wait_for(lambda: self.written + self.dropped >= given, _LAST_SECONDS)

    def reopen(self) -> None:
        """Whoever rotates logs has moved the file: go on in a new one of its name."""
        with self._changed:
            self._reopen = True
            self._changed.notify()

    def close(self) -> None:
        """Write what is left, for a moment at most."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(_LAST_SECONDS)
        if not self._thread.is_alive():
            os.close(self._file)

    # The thread.

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (self._lines or self._closing or self._reopen):
                    self._changed.wait()
                # Others come with it: the thread and the loop would take the interpreter from each other.
                self._changed.wait_for(lambda: self._closing, _GATHER_SECONDS)
                lines, self._lines = self._lines, deque()
                self._bytes = 0
                reopen, self._reopen = self._reopen, False
                closing = self._closing
            done = self._put(lines, reopen=reopen)
            with self._changed:
                self._changed.notify_all()
            if not done:
                self._keep(lines)
                if closing:
                    return
                with self._changed:
                    self._changed.wait_for(lambda: self._closing, self._again)
            elif closing and not self._lines:
                return

    def _put(self, lines: deque[bytes], *, reopen: bool) -> bool:
        """Write them; False if the system refused. What was written is taken off."""
        try:
            if reopen or self._moved():
                self._open_anew()
            dropped = self.dropped
            if dropped > self._told:
                self._write_whole(self._dropped_line(dropped - self._told))
                self._told = dropped
            while lines:
                self._write_whole(lines[0])
                lines.popleft()
                self.written += 1
        except OSError as error:
            self.failures += 1
            self._warn(error)
            return False
        return True

    def _write_whole(self, line: bytes) -> None:
        """All of it, or an error, after which the next one begins on a line of its own."""
        data = b"\n" + line if self._torn else line
        view = memoryview(data)
        while view:
            self._torn = True
            view = view[os.write(self._file, view) :]
        self._torn = False

    def _keep(self, lines: deque[bytes]) -> None:
        """They come first in the next attempt; newer ones are dropped meanwhile, when there is no room."""
        with self._changed:
            self._lines.extendleft(reversed(lines))
            self._bytes = sum(map(len, self._lines))

    def _moved(self) -> bool:
        """Whether the file was moved away: its name is that of another one by now, or of none."""
        try:
            there, ours = os.stat(self._path), os.fstat(self._file)
        except FileNotFoundError:
            return True
        return (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino)

    def _open_anew(self) -> None:
        new = _open(self._path)
        os.close(self._file)
        self._file, self._torn = new, _cut_off(self._path)

    def _dropped_line(self, count: int) -> bytes:
        moment = datetime.fromtimestamp(self._wall() / 1e9, UTC).isoformat(timespec="microseconds")
        line = {"time": moment.replace("+00:00", "Z"), "dropped": count}
        return json.dumps(line, separators=(",", ":")).encode() + b"\n"

    def _warn(self, error: OSError) -> None:
        now = self._wall() / 1e9
        if abs(now - self._warned) >= _SAY_SECONDS:
            self._warned = now
            logger.warning(
                "the audit log cannot be written",
                extra={"file": str(self._path), "reason": error.strerror or str(error), "lost": self.dropped},
            )


def _open(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _cut_off(path: Path) -> bool:
    """Whether the last line of a file has no end, as after the end of a machine."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.seek(0, os.SEEK_END) > 0 and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n"
