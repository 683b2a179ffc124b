"""What may travel as metadata of a gRPC call.

gRPC's C core, the library under most clients, drops answers with more than 8 KiB of it now and then, and
with more than 16 KiB always; the caller is told "Stream removed", or nothing. Counted is what is sent: of
a text, everything that is not printable ASCII takes three bytes for one, a Chinese letter nine.
"""

from __future__ import annotations

MOST_TEXT = 4000
"""Bytes of a status text, as sent."""
MOST_NAME = 256
"""Characters of a name beside it."""
MOST_DETAILS = 2048
"""Bytes beside it that are sent as base64. All together stay below 8 KiB, names of fields included."""

MOST_REQUEST_METADATA = 80 << 10
"""Bytes of what comes with a call, of which a token may be 64 KiB; 32 are counted for each field."""

_AS_THEY_ARE = bytes(byte for byte in range(0x20, 0x7F) if byte != ord("%"))


def size_as_sent(text: str) -> int:
    """Bytes of a status text, percent-encoded."""
    encoded = text.encode("utf-8", "replace")
    return len(encoded) + 2 * len(encoded.translate(None, _AS_THEY_ARE))


def shortened(text: str, most: int = MOST_TEXT) -> str:
    """The text, if it takes at most so many bytes; else its beginning, whole characters of it, and a mark."""
    if text.isascii():
        if 3 * len(text) <= most:
            return text
    else:
        text = text.encode("utf-8", "replace").decode()  # half a surrogate pair cannot be sent
    if size_as_sent(text) <= most:
        return text
    mark = f"... (cut: {len(text)} characters)"
    room = most - len(mark)
    low, high = 0, min(len(text), room)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if size_as_sent(text[:middle]) <= room else (low, middle - 1)
    return text[:low] + mark
