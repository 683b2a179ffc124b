"""What gRPC says in header fields: timeouts, statuses, metadata of applications."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final

from connect_kv.http2.hpack import ENTRY_OVERHEAD, Field, literal
from connect_kv.trailers import shortened

Metadata = Sequence[tuple[str, str | bytes]]
"""Pairs of name and value; bytes where the name ends in ``-bin``."""

OK, CANCELLED, UNKNOWN, INVALID_ARGUMENT, DEADLINE_EXCEEDED = 0, 1, 2, 3, 4
RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE = 8, 12, 13, 14
PERMISSION_DENIED: Final = 7
LAST_CODE: Final = 16
_CODES: Final = (
    *("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS"),
    *("PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE"),
    *("UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"),
)

LONGEST_MESSAGE: Final = 4096
"""Bytes of ``grpc-message``, encoded; the rest is cut off."""
LONGEST_TRAILERS: Final = 8192
"""Bytes of all fields of an answer: above it C core begins to lose whole answers."""

_USUAL: Final = 128
_SHORT: Final = 200
"""So many statuses with texts below that are kept ready."""

_UNITS: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_NAME: Final = re.compile(rb"[0-9a-z_.-]+")
_PLAIN: Final = re.compile(r"[\x20-\x24\x26-\x7e]*")
"""Texts that are sent as they are."""
_VALUE: Final = re.compile(rb"[\x20-\x7e]*")
_TOKEN: Final = re.compile(rb":?[!#$%&'*+.^_`|~0-9a-z-]+")
_CONNECTION: Final = frozenset(
    (b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade")
)
"""Fields that HTTP/2 does not have (RFC 9113, 8.2.2)."""
_RESERVED: Final = frozenset((b"content-type", b"te", b"host", *_CONNECTION))


class StatusError(Exception):
    """A call that ends with another status than OK. Raise it in a handler; calls of a client raise it."""

    def __init__(self, code: int, text: str, trailing: Metadata = (), *, unprocessed: bool = False) -> None:
        super().__init__(code, text)
        self.code = code
        """A status code of gRPC, 1 to 16."""
        self.text = text
        self.trailing = trailing
        self.unprocessed = unprocessed
        """The call certainly never reached a handler: it may be made again elsewhere."""

    def __str__(self) -> str:
        return f"{self.text} (code {self.code})"


def code_name(code: int) -> str:
    """What gRPC calls a status code."""
    return _CODES[code] if 0 <= code <= LAST_CODE else f"status {code}"


def parse_timeout(value: bytes) -> float | None:
    """Seconds; None if it is not a ``grpc-timeout``: one to eight digits and a unit."""
    unit = _UNITS.get(value[-1:])
    digits = value[:-1]
    if unit is None or not 1 <= len(digits) <= 8 or not digits.isdigit():
        return None
    return int(digits) * unit


def format_timeout(seconds: float) -> bytes:
    """A ``grpc-timeout`` that is at least that long, if that is possible."""
    for unit in (b"u", b"m", b"S", b"M"):
        count = max(1, int(seconds / _UNITS[unit] + 0.999))
        if count < 10**8:
            return b"%d%s" % (count, unit)
    return b"99999999H"


def well_formed(fields: Iterable[Field]) -> bool:
    """Whether names, pseudo-fields and values are as RFC 9113, 8.2 and 8.3, wants them in any message."""
    regular, seen = False, set()
    for name, value in fields:
        if name[:1] == b":":
            if regular or name in seen:
                return False
            seen.add(name)
        else:
            regular = True
            if name in _CONNECTION or (name == b"te" and value != b"trailers"):
                return False
        # Section 8.2.1 forbids blanks around a value; gRPC-go and gRPC's C core send and take them, and a
        # token that begins with one is a wrong token, not the end of a call without a status.
        if not _TOKEN.fullmatch(name):
            return False
        if b"\n" in value or b"\r" in value or b"\0" in value:
            return False
    return True


def decode_metadata(fields: Iterable[Field]) -> list[tuple[str, str | bytes]]:
    """The application's own fields, in order. A ``-bin`` value that is no base64 stays out."""
    found: list[tuple[str, str | bytes]] = []
    for name, value in fields:
        if name.startswith((b":", b"grpc-")) or name in _RESERVED:
            continue
        key = name.decode("latin-1")
        if not name.endswith(b"-bin"):
            found.append((key, value.decode("latin-1")))
            continue
        for one in value.split(b","):
            try:
                found.append(
                    (key, base64.b64decode(one.strip() + b"=" * (-len(one.strip()) % 4), validate=True))
                )
            except binascii.Error:
                continue
    return found


def encode_metadata(metadata: Metadata) -> list[Field]:
    """Fields of an application's metadata. Raises ValueError for what gRPC does not allow."""
    fields = []
    for key, given in metadata:
        name = key.encode("latin-1", "replace")
        if not _NAME.fullmatch(name) or name.startswith(b"grpc-") or name in _RESERVED:
            raise ValueError(f"{key!r} is not a name for metadata")
        if name.endswith(b"-bin"):
            value = base64.b64encode(given if isinstance(given, bytes) else given.encode()).rstrip(b"=")
        else:
            value = given if isinstance(given, bytes) else given.encode()
            if not _VALUE.fullmatch(value) or value != value.strip():
                raise ValueError(f"the metadata {key!r} is not printable ASCII: its name must end in -bin")
        fields.append((name, value))
    return fields


def percent_encode(text: str) -> bytes:
    """A ``grpc-message``. One that would take more than LONGEST_MESSAGE is cut, and says so."""
    if len(text) <= LONGEST_MESSAGE and _PLAIN.fullmatch(text):
        return text.encode()
    return b"".join(
        bytes((octet,)) if 0x20 <= octet <= 0x7E and octet != 0x25 else b"%%%02X" % octet
        for octet in shortened(text, LONGEST_MESSAGE).encode("utf-8", "replace")
    )


def percent_decode(value: bytes) -> str:
    """What `percent_encode` made; a ``%`` that begins nothing stands for itself."""
    plain = re.sub(rb"%([0-9A-Fa-f]{2})", lambda found: bytes((int(found[1], 16),)), value)
    return plain.decode("utf-8", "replace")


def status_block(code: int, text: str, trailing: Metadata = ()) -> bytes:
    """The fields that end an answer, for no table. What would be too much for clients to take ends the call
    with INTERNAL instead: they would lose all of it, the status too.
    """
    if isinstance(trailing, tuple) and len(text) < _SHORT:
        return _usual_block(code, text, trailing)  # what refuses thousands of calls refuses them alike
    return _block(code, text, trailing)


def _block(code: int, text: str, trailing: Metadata) -> bytes:
    fields = [(b"grpc-status", b"%d" % code)]
    if text:
        fields.append((b"grpc-message", percent_encode(text)))
    fields += encode_metadata(trailing)
    if sum(len(name) + len(value) + ENTRY_OVERHEAD for name, value in fields) > LONGEST_TRAILERS:
        return status_block(INTERNAL, f"the metadata of an answer exceeds {LONGEST_TRAILERS} bytes")
    return b"".join(literal(name, value) for name, value in fields)


_usual_block = lru_cache(_USUAL)(_block)
