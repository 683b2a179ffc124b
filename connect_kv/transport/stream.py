"""Streams between members, and what it means when one breaks."""

from __future__ import annotations

import os
import socket
import ssl
from enum import Enum

from connect_kv.http2.metadata import PERMISSION_DENIED, StatusError, code_name
from connect_kv.peer_protocol import Loss
from connect_kv.transport.codec import Frame, decode_frame
from connect_kv.transport.wire import FrameStream


class Lane(Enum):
    """The two ordered streams between members; the value is the method's name."""

    APPEND = "AppendEntries"
    """Appends and heartbeats, and their answers the other way."""
    FORWARD = "Forward"
    """Proposals and read barriers, and their answers the other way."""


class StreamBroken(ConnectionError):
    """The stream is over; says why."""


class PermissionDenied(ConnectionError):
    """Who connected is no member of this cluster; says how that shows."""


async def read_frame(stream: FrameStream) -> Frame:
    """The next frame. Raises StreamBroken at the end and BadMessage."""
    return decode_frame(await next_frame(stream, "ended by the other side"))


async def next_frame(stream: FrameStream, at_the_end: str) -> bytes:
    """The next one as it came. Raises StreamBroken, with those words if there is none."""
    data = await stream.read()
    if data is None:
        raise StreamBroken(at_the_end)
    return data


def describe_failure(error: BaseException) -> str:
    """One line for logs."""
    if isinstance(error, StatusError):
        return f"{code_name(error.code)}: {error.text}"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"handshake failed: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"handshake failed: {error.reason or error}"
    if isinstance(error, OSError) and error.errno is not None and not isinstance(error, socket.gaierror):
        return os.strerror(error.errno)  # the loop's own words repeat the address, or several
    return str(error) or type(error).__name__


def failed_in_tls(error: BaseException) -> bool:
    """Whether the two sides do not trust each other, or only one of them speaks TLS."""
    if isinstance(error, StatusError):
        # A server that does not like our certificate says so once we believe that we are connected.
        return error.code == PERMISSION_DENIED or isinstance(error.__cause__, ssl.SSLError)
    return isinstance(error, ssl.SSLError)


def loss_of(error: BaseException) -> Loss:
    """What a failed call tells of the member at its other end."""
    if isinstance(error, ConnectionRefusedError):
        return Loss.REFUSED
    if isinstance(error, socket.gaierror):
        return Loss.UNRESOLVED
    return Loss.SILENT
