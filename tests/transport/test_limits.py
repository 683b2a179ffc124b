"""What gRPC is told about time and size."""

from __future__ import annotations

import pytest

from connect_kv.config import MAX_REQUEST_BYTES
from connect_kv.transport.limits import TransportLimits, channel_options, server_options


@pytest.mark.parametrize("seconds", [1.0, 2.5, 10.0])
def test_a_dead_connection_is_noticed_within_two_election_timeouts(seconds: float) -> None:
    limits = TransportLimits.for_election(seconds)
    assert limits.unary_timeout <= seconds
    for options in (channel_options(limits), server_options(limits)):
        told = dict(options)
        noticed = told["grpc.keepalive_time_ms"] + told["grpc.keepalive_timeout_ms"]
        assert seconds * 1000 < noticed < 2 * seconds * 1000


def test_every_request_that_may_be_allowed_fits_into_a_frame() -> None:
    limits = TransportLimits()
    for options in (channel_options(limits), server_options(limits)):
        assert dict(options)["grpc.max_receive_message_length"] > limits.max_frame_bytes
    assert limits.max_entry_bytes > MAX_REQUEST_BYTES + limits.max_batch_bytes
