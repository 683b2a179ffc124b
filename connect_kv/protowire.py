"""Protobuf's encoding where messages are put together from bytes that are encoded already.

Source: "Encoding" of the Protocol Buffers documentation: a field is a tag (``number << 3 | wire type``)
and its content; a varint has seven bits an octet, the lowest first, and the eighth says that more follow.
"""

from __future__ import annotations

from collections.abc import Iterator


def varint(number: int) -> bytes:
    """A number of [0, 2^64)."""
    if number < 0x80:
        return bytes((number,))
    if number < 0x4000:
        return bytes((number & 0x7F | 0x80, number >> 7))
    if number < 0x200000:
        return bytes((number & 0x7F | 0x80, number >> 7 & 0x7F | 0x80, number >> 14))
    octets = bytearray()
    while number >= 0x80:
        octets.append(number & 0x7F | 0x80)
        number >>= 7
    octets.append(number)
    return bytes(octets)


def read_varint(encoded: bytes, at: int) -> tuple[int, int]:
    """The number that begins there, and where it ends.

    Raises IndexError if the bytes end before it does, ValueError beyond 64 bits.
    """
    number = shift = 0
    while True:
        if shift > 63:
            raise ValueError("a number of more than 64 bits")
        octet = encoded[at]
        at += 1
        number |= (octet & 0x7F) << shift
        if octet < 0x80:
            return number, at
        shift += 7


def tag(number: int) -> bytes:
    """What stands before the length and the content of a field of bytes, text or a message."""
    return varint(number << 3 | 2)


def field(tag: bytes, content: bytes) -> bytes:
    """A length-delimited field, encoded: its tag, its length and `data`."""
    return tag + varint(len(content)) + content


class MessagePieces:
    """An encoded message in pieces: a large one is only put together once, by who sends it on."""

    __slots__ = ("pieces", "size")

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = list(pieces)
        self.size = sum(map(len, pieces))

    def add(self, piece: bytes) -> None:
        """Append encoded fields."""
        self.pieces.append(piece)
        self.size += len(piece)

    def add_field(self, tag: bytes, content: MessagePieces) -> None:
        """Append a message as a field."""
        self.add(tag + varint(content.size))
        self.pieces += content.pieces
        self.size += content.size

    def begin_with(self, piece: bytes) -> MessagePieces:
        """Put encoded fields before the others."""
        self.pieces.insert(0, piece)
        self.size += len(piece)
        return self

    def joined(self) -> bytes:
        """The whole."""
        return b"".join(self.pieces)

    def taken(self) -> Iterator[bytes]:
        """The pieces in order; each is forgotten here once the next is asked for."""
        pieces, self.pieces = self.pieces[::-1], []
        while pieces:
            yield pieces.pop()
