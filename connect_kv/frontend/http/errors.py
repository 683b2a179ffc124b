"""How a refusal looks over HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from json.encoder import encode_basestring as quoted

from connect_kv.etcd_errors import Code
from connect_kv.frontend.http import heads
from connect_kv.frontend.http.exchange import Exchange

STATUSES: Mapping[Code, int] = {
    Code.OK: 200,
    Code.CANCELLED: 499,
    Code.UNKNOWN: 500,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 400,
    Code.UNIMPLEMENTED: 501,
    Code.INTERNAL: 500,
    Code.UNAVAILABLE: 503,
    Code.DATA_LOSS: 500,
    Code.UNAUTHENTICATED: 401,
}
"""HTTP statuses by gRPC codes, as the library of etcd's gateway has them."""


def refuse(exchange: Exchange, code: Code, text: str) -> None:
    """The whole answer to a unary call that failed: for clients of both generations of etcd's gateway."""
    exchange.respond(STATUSES[code], fields(code, text), body(code, text))


def fields(code: Code, text: str) -> bytes:
    """The header fields of such an answer."""
    if code is Code.UNAUTHENTICATED:
        return heads.written((heads.JSON, ("WWW-Authenticate", text)))
    return heads.constant(heads.JSON)


def body(code: Code, text: str) -> bytes:
    """`error` is what clients of etcd 3.4 and 3.5 look for."""
    said = quoted(text)
    return f'{{"error":{said},"code":{int(code)},"message":{said}}}'.encode("utf-8", "replace")


def last_line(code: Code, text: str) -> str:
    """Of a stream that failed."""
    return f'{{"error":{{"code":{int(code)},"message":{quoted(text)}}}}}'
