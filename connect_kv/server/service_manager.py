"""What systemd is told of this process: that it serves, that it stops, and that its loop turns.

The protocol is a datagram of lines to the socket that the environment names: sd_notify(3),
sd_watchdog_enabled(3).
A process that was not started so is not concerned.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Mapping

logger = logging.getLogger(__name__)


class ServiceManager:
    """The manager that started this process, if there is one. Call from the loop."""

    def __init__(self, environ: Mapping[str, str], process: int) -> None:
        """`process`: our number; a watchdog may be meant for another one."""
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        microseconds = environ.get("WATCHDOG_USEC", "")
        ours = environ.get("WATCHDOG_PID", str(process)) == str(process)
        self._every = int(microseconds) / 2e6 if microseconds.isdigit() and ours else 0.0
        """Seconds between two signs of life: half of what the manager waits for; 0: it does not wait."""
        self._next: asyncio.TimerHandle | None = None

    def ready(self) -> None:
        """Clients are served from now on. Units that wait for this one are started."""
        self._tell("READY=1")
        if self._address and self._every > 0:
            self._alive()

    def stopping(self) -> None:
        """It ends in order: however long that takes, no watchdog may cut it short."""
        if self._next is not None:
            self._next.cancel()
            self._next = None
        self._tell("STOPPING=1")

    def _alive(self) -> None:
        # From the loop, so that a loop that no longer turns says nothing.
        self._tell("WATCHDOG=1")
        self._next = asyncio.get_running_loop().call_later(self._every, self._alive)

    def _tell(self, line: str) -> None:
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as one:
            one.setblocking(False)
            try:
                one.sendto(line.encode(), self._address)
            except OSError as error:
                logger.warning("the service manager was not told", extra={"line": line, "reason": str(error)})
