"""The packages h2 and jh2 as clients: what we send is right by their books, in any cut, with any windows."""

from __future__ import annotations

import importlib
import random
from collections import defaultdict
from types import ModuleType
from typing import Any

import pytest

from connect_kv.http2.limits import Limits
from connect_kv.http2.server import ServerConnection
from tests.http2.wire import STREAM, RawClient, message, request


class Library:
    """A client made with one of them."""

    def __init__(self, name: str, rng: random.Random, server: RawClient, settings: dict[int, int]) -> None:
        self.events: ModuleType = importlib.import_module(f"{name}.events")
        config = importlib.import_module(f"{name}.config")
        self.connection: Any = importlib.import_module(f"{name}.connection").H2Connection(
            config.H2Configuration(client_side=True, header_encoding="utf-8")
        )
        self.rng = rng
        self.server = server
        self.connection.initiate_connection()
        if settings:
            self.connection.update_settings(settings)
        self.headers: dict[int, dict[str, str]] = defaultdict(dict)
        self.data: dict[int, bytes] = defaultdict(bytes)
        self.ended: set[int] = set()
        self.reset: dict[int, int] = {}

    def call(self, body: bytes, path: bytes | None = None, end: bool = True) -> int:
        number: int = self.connection.get_next_available_stream_id()
        fields = request(path=path) if path is not None else request()
        self.connection.send_headers(number, fields)
        self._send(number, message(body), end)
        return number

    def _send(self, number: int, data: bytes, end: bool) -> None:
        while data:
            room = min(self.connection.local_flow_control_window(number), 16_384, len(data))
            if not room:
                self.settle()
                continue
            self.connection.send_data(number, data[:room], end_stream=end and room == len(data))
            data = data[room:]

    def settle(self) -> None:
        """Until nobody has anything to say."""
        while True:
            out = self.connection.data_to_send()
            while out:
                size = self.rng.choice([1, 10, 1000, 1 << 20])
                self.server.send(out[:size])
                out = out[size:]
            self.server.core.written()
            answer = b"".join(self.server.core.out)
            self.server.core.out.clear()
            self.server.turn.dirty.clear()
            if not answer:
                return
            while answer:
                size = self.rng.choice([1, 10, 1000, 1 << 20])
                for event in self.connection.receive_data(answer[:size]):
                    self._note(event)
                answer = answer[size:]

    def _note(self, event: Any) -> None:
        events = self.events
        if isinstance(event, events.ResponseReceived | events.TrailersReceived):
            self.headers[event.stream_id] |= dict(event.headers)
        elif isinstance(event, events.DataReceived):
            self.data[event.stream_id] += event.data
            self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, events.StreamEnded):
            self.ended.add(event.stream_id)
        elif isinstance(event, events.StreamReset):
            self.reset[event.stream_id] = event.error_code


@pytest.fixture(params=["h2", "jh2"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


SETTINGS: list[dict[int, int]] = [
    {},
    {1: 0},
    {3: 0, 2: 0},
    {4: 1},
    {4: 1000, 5: 1 << 20},
    {4: 1 << 20, 6: 16_384},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_calls_of_any_size_come_back(name: str, settings: dict[int, int]) -> None:
    for seed in range(4):
        rng = random.Random(seed)
        client = Library(name, rng, RawServerFromTheStart(), settings)
        small = settings.get(4, 65_535) < 1000
        bodies = [
            b"v" * rng.choice([0, 1, 100, 500] if small else [0, 1, 5000, 16_379, 200_000]) for _ in range(8)
        ]
        numbers = []
        for body in bodies:
            numbers.append(client.call(body))
            if rng.random() < 0.5:
                client.settle()
        client.settle()
        for number, body in zip(numbers, bodies, strict=True):
            assert client.data[number] == message(body)
            assert client.headers[number][":status"] == "200"
            assert client.headers[number]["content-type"] == "application/grpc"
            assert client.headers[number]["grpc-status"] == "0"
            assert number in client.ended
        core = client.server.core
        assert core.turn.held == core.turn.waiting == 0
        assert not core.streams


class RawServerFromTheStart(RawClient):
    """With the first frames still to be read."""

    def __init__(self) -> None:
        super().__init__(Limits(stream_window=65_535), greet=False, answer=True)
        self.core = ServerConnection(self.turn, Limits(stream_window=65_535), self.now)


def test_a_status_without_a_message_ends_the_stream(name: str) -> None:
    client = Library(name, random.Random(1), RawServerFromTheStart(), {})
    number = client.call(b"", b"/x.Y/Z")
    client.settle()
    assert client.headers[number]["grpc-status"] == "12"
    assert client.headers[number]["grpc-message"] == "unknown service x.Y"
    assert number in client.ended


def test_a_stream_that_the_server_ends_first_is_reset_without_error(name: str) -> None:
    client = Library(name, random.Random(1), RawServerFromTheStart(), {})
    number = client.call(b"ask", STREAM, end=False)
    client.settle()
    (call,) = client.server.begun
    assert client.server.core.take(call) == b"ask"
    client.server.core.send(call, b"answer")
    client.server.core.fail(call, 5, "none")
    client.settle()
    assert client.data[number] == message(b"answer")
    assert client.headers[number]["grpc-status"] == "5"
    assert client.reset == {number: 0}
    other = client.call(b"next")
    client.settle()
    assert client.data[other] == message(b"next")


def test_a_drain_is_two_goodbyes(name: str) -> None:
    client = Library(name, random.Random(1), RawServerFromTheStart(), {})
    client.call(b"")
    client.settle()
    client.server.core.drain()
    frames = client.server.got()
    assert [one.kind for one in frames] == [7, 6]
    client.server.frame(6, 1, 0, frames[1].payload)
    assert client.server.core.done
