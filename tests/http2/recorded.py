"""What clients send to a `listener.Http2Server`, frame by frame."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from connect_kv.http2 import listener
from connect_kv.http2.frames import PREFACE
from connect_kv.http2.hpack import Field, FieldDecoder
from tests.http2.wire import Frame


class Recorded:
    """Of all connections, in the order of their beginning."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.connections: dict[int, bytearray] = {}
        self.sockets: list[Any] = []
        self.decoded = 0
        """Blocks of header fields that were decoded, and not found by their bytes."""
        decode = FieldDecoder.decode

        def counted(decoder: FieldDecoder, block: bytes) -> tuple[list[Field], int]:
            self.decoded += 1
            return decode(decoder, block)

        patch.setattr(FieldDecoder, "decode", counted)
        real = listener._Socket.data_received

        def data_received(socket: Any, data: bytes) -> None:
            if socket not in self.sockets:
                self.sockets.append(socket)
            self.connections.setdefault(id(socket), bytearray()).extend(data)
            real(socket, data)

        patch.setattr(listener._Socket, "data_received", data_received)

    def frames(self) -> list[Frame]:
        """Whole ones, of those that speak HTTP/2."""
        found = []
        for data in self.connections.values():
            if not data.startswith(PREFACE):
                continue
            at = len(PREFACE)
            while at + 9 <= len(data):
                size = int.from_bytes(data[at : at + 3], "big")
                stream = int.from_bytes(data[at + 5 : at + 9], "big")
                found.append(Frame(data[at + 3], data[at + 4], stream, bytes(data[at + 9 : at + 9 + size])))
                at += 9 + size
        return found

    def kinds(self) -> Counter[int]:
        return Counter(one.kind for one in self.frames())


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    return Recorded(monkeypatch)
