"""Keys and ranges of keys as the API spells them."""

from __future__ import annotations

Text = str | bytes | bytearray | memoryview
"""Keys and values are bytes; text is encoded as UTF-8, what is like bytes is copied."""

EVERYTHING = b"\0"
"""As a range's end: all keys from its start."""


def to_bytes(text: Text) -> bytes:
    """UTF-8, or the bytes themselves. Raises TypeError for anything else."""
    if isinstance(text, bytes):
        return text
    if isinstance(text, str):
        return text.encode()
    if isinstance(text, bytearray | memoryview):
        return bytes(text)
    raise TypeError(f"expected text, bytes, a bytearray or a memoryview, got {type(text).__name__}")


def prefix_end(prefix: bytes) -> bytes:
    """The end of the range of all keys that begin with `prefix`."""
    stem = prefix.rstrip(b"\xff")
    if not stem:
        return EVERYTHING
    return stem[:-1] + bytes([stem[-1] + 1])


def span(key: Text, range_end: Text, prefix: bool) -> tuple[bytes, bytes]:
    """`key` and `range_end` of a request; with `prefix` all keys that begin with `key`."""
    start = to_bytes(key)
    if not prefix:
        return start, to_bytes(range_end)
    if range_end:
        raise ValueError("give either prefix or range_end")
    return (start, prefix_end(start)) if start else (b"\0", EVERYTHING)
