"""What is said in metadata arrives, however long, and so does what comes with a call.

Whether a library drops too much of it is left to chance between two limits: so each is tried often.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import quote

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connect_kv.errors import CommandFailed, OutcomeUnknown
from connect_kv.frontend.grpc.router import Router
from connect_kv.frontend.grpc.services import add_services
from connect_kv.metrics import Metrics
from connect_kv.rpc.kv_pb2 import PutRequest, PutResponse
from connect_kv.services.caller import Caller
from connect_kv.services.streams import Streams
from connect_kv.trailers import MOST_DETAILS, MOST_NAME, MOST_TEXT, shortened, size_as_sent
from tests.doors import listening

OFTEN = 30
PUT = "/etcdserverpb.KV/Put"
LONG = {
    "letters": "x" * 100_000,
    "chinese": "永" * 4096,
    "emoji": "🙂" * 2000,
    "mixed": "ab永\n%" * 3000,
    "half a pair": "\ud83d" * 5000,
}


class Keys:
    """Fails as it is told."""

    def __init__(self) -> None:
        self.error: Exception | None = None

    async def Put(self, request: PutRequest, caller: Caller) -> PutResponse:
        if self.error is not None:
            raise self.error
        return PutResponse()


@asynccontextmanager
async def serving(keys: Keys) -> AsyncIterator[grpc.aio.Channel]:
    router = Router(Streams(lambda: True, patience=1.0), Metrics(process=False), lambda: True)
    add_services(router, {"KV": keys})
    async with (
        listening(router) as port,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        yield channel


async def failure(channel: grpc.aio.Channel) -> grpc.aio.AioRpcError:
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(PUT)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call(b"", timeout=20)
    return raised.value


@pytest.mark.parametrize("name", LONG)
async def test_a_long_text_arrives_cut_with_all_that_stands_beside_it(name: str) -> None:
    text, keys = LONG[name], Keys()
    keys.error = CommandFailed("E" * 10_000, text, b"\x00" * MOST_DETAILS)
    async with serving(keys) as channel:
        for _ in range(OFTEN):
            error = await failure(channel)
            assert error.code() is grpc.StatusCode.ABORTED
            told = error.details() or ""
            assert told.startswith("E" * 100)
            assert told.endswith("characters)")
            named = dict(error.trailing_metadata() or ())
            assert named["connect-kv-error"] == "CommandFailed"
            assert named["connect-kv-error-type"] == "E" * MOST_NAME
            assert "connect-kv-error-details" in named
        keys.error = OutcomeUnknown(text)
        error = await failure(channel)
        assert (error.details() or "").startswith("etcdserver: request timed out")


async def test_a_path_that_nobody_serves_may_be_of_any_length() -> None:
    async with serving(Keys()) as channel:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{'x' * 20_000}/Put")
        for _ in range(OFTEN):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await call(b"", timeout=20)
            assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED
            assert "cut" in (raised.value.details() or "")


@pytest.mark.parametrize("size", [8_000, 9_000, 16_000, 20_000, 40_000, 65_536])
async def test_a_token_of_any_usual_size_is_read(size: int) -> None:
    async with serving(Keys()) as channel:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(PUT)
        for _ in range(OFTEN):
            assert await call(b"", timeout=20, metadata=(("token", "t" * size),)) == b""


@given(st.text(st.characters(codec="utf-8") | st.sampled_from("%\n永a"), max_size=200), st.integers(60, 400))
def test_a_text_is_cut_between_characters_and_says_so(text: str, most: int) -> None:
    found = shortened(text, most)
    assert size_as_sent(found) <= most
    assert size_as_sent(text) == len(quote(text, safe="".join(map(chr, range(0x20, 0x7F))).replace("%", "")))
    if found != text:
        kept, mark, rest = found.rpartition("... (cut: ")
        assert (mark, rest) == ("... (cut: ", f"{len(text)} characters)")
        assert text.startswith(kept)
        # Not a character less than there is room for.
        assert size_as_sent(text[: len(kept) + 1] + mark + rest) > most


@pytest.mark.parametrize("text", ["", "etcdserver: no leader", "x" * (MOST_TEXT // 3), "x" * MOST_TEXT])
def test_a_text_that_fits_stays(text: str) -> None:
    assert shortened(text) == text
