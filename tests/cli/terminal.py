"""A command in a terminal of its own."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from collections.abc import Mapping

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


class Screen:
    """A terminal of 80 columns and 24 lines with a command in it."""

    def __init__(self, environment: Mapping[str, str], *command: str) -> None:
        self._main, side = pty.openpty()
        fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.process = subprocess.Popen(
            command,
            stdin=side,
            stdout=side,
            stderr=side,
            env={**environment, "TERM": "xterm"},
            start_new_session=True,
        )
        os.close(side)
        os.set_blocking(self._main, False)
        self._text = ""

    @property
    def text(self) -> str:
        """All that was written so far."""
        while True:
            try:
                piece = os.read(self._main, 65536)
            except OSError:  # nothing now, or it has ended
                return self._text
            if not piece:
                return self._text
            self._text += piece.decode(errors="replace")

    @property
    def frames(self) -> list[str]:
        """What the screen was, one after the other."""
        return [ESCAPES.sub("", one) for one in self.text.split("\x1b[H")[1:]]

    def type(self, text: str) -> None:
        os.write(self._main, text.encode())

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._main)
