"""What the log says about a broken stream fits on a line."""

import socket
import ssl

import pytest

from connect_kv.http2.metadata import UNAVAILABLE, StatusError
from connect_kv.peer_protocol import Loss
from connect_kv.transport.stream import describe_failure, failed_in_tls, loss_of


@pytest.mark.parametrize(
    ("error", "line", "loss"),
    [
        (
            ConnectionRefusedError(111, "Connect call failed ('10.0.0.2', 2380)"),
            "Connection refused",
            Loss.REFUSED,
        ),
        (
            socket.gaierror(-2, "Name or service not known"),
            "[Errno -2] Name or service not known",
            Loss.UNRESOLVED,
        ),
        (StatusError(UNAVAILABLE, "ping timeout"), "UNAVAILABLE: ping timeout", Loss.SILENT),
        (TimeoutError(), "TimeoutError", Loss.SILENT),
    ],
)
def test_a_failure_in_one_line_and_what_it_tells_of_the_member(
    error: Exception, line: str, loss: Loss
) -> None:
    assert describe_failure(error) == line
    assert loss_of(error) is loss
    assert not failed_in_tls(error)


def test_a_handshake_that_failed_is_told_from_a_member_that_is_away() -> None:
    assert failed_in_tls(ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number"))
    late = StatusError(UNAVAILABLE, "the connection was lost")
    late.__cause__ = ssl.SSLError(1, "[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED]")
    assert failed_in_tls(late)
