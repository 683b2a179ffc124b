"""What of a request's header fields becomes metadata of the call, as etcd's gateway maps it."""

from __future__ import annotations

import binascii
from base64 import b64decode

from connect_kv.etcd_errors import Code, Refusal
from connect_kv.frontend.grpc.router import PEER_ADDRESS, Metadata
from connect_kv.frontend.http.exchange import Headers

_PREFIX = b"grpc-metadata-"
_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
TOO_SHORT = 1e-4
"""Seconds in which no call can be answered: not even begun."""


def metadata_of(headers: Headers, peer: str | None) -> tuple[Metadata, float | None]:
    """The metadata, and the seconds that the call may take, if the client says. `peer`: where it comes from,
    for a method that wants to know.

    Raises Refused for what cannot be read.
    """
    found: list[tuple[str, str | bytes]] = [] if peer is None else [(PEER_ADDRESS, peer)]
    seconds = None
    for name, value in headers:
        if name == b"authorization":
            found.append(("authorization", value.decode("latin-1")))
        elif name == b"traceparent":
            found.append(("traceparent", value.decode("latin-1")))
        elif name.startswith(_PREFIX):
            key = name[len(_PREFIX) :].decode("latin-1")
            if key and not key.startswith(":"):
                found.append((key, _binary(key, value) if key.endswith("-bin") else value.decode("latin-1")))
        elif name == b"grpc-timeout":
            seconds = _seconds(value.decode("latin-1"))
    return found, seconds


def _binary(key: str, value: bytes) -> bytes:
    try:
        return b64decode(value + b"=" * (-len(value) % 4), validate=True)
    except binascii.Error as error:
        raise Refusal(Code.INVALID_ARGUMENT, f"invalid binary header {key}: {error}").error() from None


def _seconds(text: str) -> float:
    number, unit = text[:-1], text[-1:]
    if unit not in _UNITS or not number.isdecimal() or not number.isascii() or len(number) > 18:
        raise Refusal(Code.INVALID_ARGUMENT, f"invalid grpc-timeout: {text}").error()
    return int(number) * _UNITS[unit]
