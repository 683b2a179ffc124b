"""What the log says about a broken stream fits on a line."""

import grpc
import pytest
from grpc.aio import AioRpcError, Metadata

from connect_kv.transport.stream import describe_failure


@pytest.mark.parametrize(
    ("details", "line"),
    [
        (
            "failed to connect to all addresses; last error: UNKNOWN: ipv4:10.0.0.2:2380: "
            "Failed to connect to remote host: Connection refused",
            "UNAVAILABLE: 10.0.0.2:2380: Connection refused",
        ),
        ("ping timeout", "UNAVAILABLE: ping timeout"),
        ("", "UNAVAILABLE: "),
    ],
)
def test_the_reason_of_a_refused_connection_is_short(details: str, line: str) -> None:
    error = AioRpcError(grpc.StatusCode.UNAVAILABLE, Metadata(), Metadata(), details)
    assert describe_failure(error) == line


def test_an_error_without_words_is_named() -> None:
    assert describe_failure(TimeoutError()) == "TimeoutError"
