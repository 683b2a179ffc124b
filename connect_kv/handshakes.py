"""Handshakes of TLS that come to nothing on this side: counted, and told in one line now and then.

asyncio drops them without a word, so that a client in the clear, or one with a foreign certificate, would
leave no trace where somebody looks for it.
"""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any

logger = logging.getLogger(__name__)

TELL_AGAIN_SECONDS = 60.0
"""Of one reason; in between they are counted."""

_WORDS = {
    "WRONG_VERSION_NUMBER": "it does not speak TLS",
    "HTTP_REQUEST": "it does not speak TLS",
    "HTTPS_PROXY_REQUEST": "it does not speak TLS",
    "UNKNOWN_PROTOCOL": "it does not speak TLS",
    "PACKET_LENGTH_TOO_LONG": "it does not speak TLS",
    "UNSUPPORTED_PROTOCOL": "it speaks no version of TLS that is spoken here",
    "NO_SHARED_CIPHER": "it has no cipher suite in common with us",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it showed no certificate",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not trust who signed our certificate",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it does not like our certificate",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "it does not like our certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "by its clock, our certificate has expired",
}
"""What went wrong, in words, by OpenSSL's names of it."""


class Handshakes:
    """Those of one kind of port. Any thread may use it."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._told: dict[str, float] = {}
        self._since: dict[str, int] = {}
        self.refused = 0
        """How many handshakes came to nothing."""

    def failed(self, error: ssl.SSLError) -> None:
        """One came to nothing. The reasons are OpenSSL's, so there are not many."""
        reason = reason_of(error)
        with self._lock:
            self.refused += 1
            self._since[reason] = self._since.get(reason, 0) + 1
            if self._now() - self._told.get(reason, -TELL_AGAIN_SECONDS) < TELL_AGAIN_SECONDS:
                return
            self._told[reason] = self._now()
            count = self._since.pop(reason)
        logger.warning("who connected got no further than TLS", extra={"reason": reason, "times": count})

    def watch(self, context: ssl.SSLContext) -> None:
        """Have those of `context`, a port's, told here."""
        failed = self.failed

        class Watched(ssl.SSLObject):
            def do_handshake(self, *arguments: Any) -> None:
                try:
                    super().do_handshake(*arguments)
                except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                    raise
                except ssl.SSLError as error:
                    failed(error)
                    raise

        context.sslobject_class = Watched


def reason_of(error: ssl.SSLError) -> str:
    """Why a handshake failed, in words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not good: {error.verify_message}"
    reason = error.reason or "no reason is known"
    return _WORDS.get(reason, reason.lower().replace("_", " "))
