"""Traces: the seam between a member and whoever collects spans. Knows no library and no wire.

A trace begins with the caller, who says so by a W3C ``traceparent`` whose flag "sampled" is set; a member
only continues it. So without a tracer, and for every other call, nothing is done but one look whether there
is one. https://www.w3.org/TR/trace-context/
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from enum import Enum
from typing import Protocol

HEADER = "traceparent"

_SAMPLED = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f][13579bdf](-.*)?"
)
_FIRST_VERSION = 55
"""Characters of a header of version 00, which may have no more."""

Attributes = Mapping[str, str | int]


class SpanKind(Enum):
    """What a span is to the one above it."""

    SERVER = "server"
    INTERNAL = "internal"


class OpenSpan(Protocol):
    """Something that goes on."""

    @property
    def traceparent(self) -> str:
        """For what goes on within it."""

    def end(self, attributes: Attributes | None = None, error: str = "") -> None:
        """It has ended now; `error`: why it failed."""


class Tracer(Protocol):
    """Collects spans. Must not block, and must not raise."""

    def begin(self, name: str, parent: str, kind: SpanKind, attributes: Attributes) -> OpenSpan:
        """A span begins now, below the one that `parent` names."""


_carried: ContextVar[str] = ContextVar("connect_kv_traceparent", default="")


def sampled(header: str) -> bool:
    """Whether it is a traceparent whose trace is collected; what is not well formed is none."""
    if len(header) > _FIRST_VERSION and header.startswith("00"):
        return False
    return len(header) <= 512 and _SAMPLED.fullmatch(header) is not None


def current() -> str:
    """The traceparent of what this task does; empty: it is not traced."""
    return _carried.get()


@contextmanager
def carried(traceparent: str) -> Iterator[None]:
    """Within it, `current` is this: calls of the Python client carry it. Empty: none."""
    token = _carried.set(traceparent)
    try:
        yield
    finally:
        _carried.reset(token)
