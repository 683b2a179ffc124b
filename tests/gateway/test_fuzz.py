"""Whatever is sent, every answer has a reason; see `tests.gateway.fuzz` for the long run."""

from __future__ import annotations

import random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connect_kv.errors import Refused
from connect_kv.frontend.http.metadata import metadata_of
from connect_kv.frontend.http.paths import targets
from connect_kv.json_mapping.decoding import BadJson, decode, readable
from connect_kv.server.composition import KvServer
from tests.gateway.fuzz import HEADERS, VALID, changed, run

MESSAGES = {path: target.method.input_type for path, target in targets().items()}


async def test_changed_requests_are_answered_or_refused_and_nothing_is_left_behind(
    server: KvServer, port: int
) -> None:
    found = await run(port, 1200, seed=random.randrange(1 << 30))
    assert not found.bad, found.bad
    assert found.answers[200] > 50
    assert found.answers[400] > 50
    http = server.services._http._serving
    assert http is not None
    assert http.server.held == 0


@given(st.randoms(use_true_random=False), st.sampled_from(VALID))
@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
def test_any_body_is_a_message_or_refused_with_words(rng: random.Random, one: object) -> None:
    assert one in VALID
    sent = changed(one, rng)
    kind = MESSAGES.get(sent.path, MESSAGES["/v3/kv/txn"])
    body = sent.body.encode("utf-8", "surrogatepass")
    told = "fine"
    try:
        decode(kind, readable(body))
    except BadJson as error:
        told = str(error)
    assert told
    assert "cannot be read" not in told


@given(
    st.lists(
        st.one_of(
            st.sampled_from([(name.lower().encode(), value.encode("latin-1")) for name, value in HEADERS]),
            st.tuples(
                st.sampled_from(
                    [b"grpc-metadata-", b"grpc-metadata-x", b"grpc-timeout", b"grpc-metadata-:a"]
                ),
                st.binary(),
            ),
        )
    )
)
def test_header_fields_become_metadata_or_are_refused(headers: list[tuple[bytes, bytes]]) -> None:
    try:
        found, _ = metadata_of(headers, None)
    except Refused:
        return
    assert not any(name.startswith(":") for name, _ in found)
