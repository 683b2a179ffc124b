"""What HTTP/2 is told about time and size."""

from __future__ import annotations

import pytest

from connect_kv.config import MAX_REQUEST_BYTES
from connect_kv.transport.limits import TransportLimits, http2_limits


@pytest.mark.parametrize("seconds", [1.0, 2.5, 10.0])
def test_a_dead_connection_is_noticed_within_two_election_timeouts(seconds: float) -> None:
    limits = TransportLimits.for_election(seconds)
    assert limits.unary_timeout <= seconds
    told = http2_limits(limits)
    assert seconds < told.keepalive + told.keepalive_timeout < 2 * seconds


def test_every_request_that_may_be_allowed_fits_into_a_frame() -> None:
    limits = TransportLimits()
    assert http2_limits(limits).message > limits.max_frame_bytes
    assert limits.max_entry_bytes > MAX_REQUEST_BYTES + limits.max_batch_bytes
