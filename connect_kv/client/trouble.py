"""What is wrong with members, in words for people who must mend it."""

from __future__ import annotations

import re
from collections.abc import Iterable

from connect_kv.client.failures import (
    DEADLINE_EXCEEDED,
    NEVER_SENT,
    NO_LEADER,
    NO_SUCH_METHOD,
    UNIMPLEMENTED,
    CallFailed,
    readable,
)
from connect_kv.rpc.maintenance_pb2 import StatusResponse

REFUSES = "refuses connections"
SILENT = "does not answer"
UNRESOLVED = "cannot be resolved"
BROKE = "broke the connection"
HTTP = "speaks HTTP/1 and not gRPC: is it the address for health and metrics?"
NOT_FOR_CLIENTS = "does not serve clients: is it the address for other members?"
NOT_TLS = "does not speak TLS"
CLOSED = "closes connections at once: does it want TLS, or another certificate of the client?"
UNTRUSTED = "has a certificate that none of the trusted CAs signed"
EXPIRED = "has a certificate that has expired, or is not valid yet by this machine's clock"
OTHER_HOST = "has a certificate for another name or address"

_PLURAL = {
    REFUSES: "refuse connections",
    SILENT: "do not answer",
    UNRESOLVED: "cannot be resolved",
    BROKE: "broke the connection",
    NOT_TLS: "do not speak TLS",
    CLOSED: "close connections at once: do they want TLS, or another certificate of the client?",
    UNTRUSTED: "have certificates that none of the trusted CAs signed",
    EXPIRED: "have certificates that have expired, or are not valid yet by this machine's clock",
    OTHER_HOST: "have certificates for other names or addresses",
    HTTP: "speak HTTP/1 and not gRPC: are they addresses for health and metrics?",
    NOT_FOR_CLIENTS: "do not serve clients: are they addresses for other members?",
}
_BARE_NO_LEADER = NO_LEADER.removeprefix("etcdserver: ")

_WORDS = (
    (re.compile(r"certificate has expired|certificate is not yet valid", re.I), EXPIRED),
    (re.compile(r"hostname verification check failed", re.I), OTHER_HOST),
    (re.compile(r"certificate_verify_failed", re.I), UNTRUSTED),
    (re.compile(r"wrong_version_number", re.I), NOT_TLS),
    (re.compile(r"failed to connect to all.*(socket closed|connection reset|broken pipe)", re.I), CLOSED),
    (re.compile(r"connection refused", re.I), REFUSES),
    (re.compile(r"http1\.x", re.I), HTTP),
    (re.compile(r"dns resolution failed|errors? resolving|name resolution", re.I), UNRESOLVED),
    (re.compile(r"timed? ?out before receiving|deadline exceeded|failed to receive SETTINGS", re.I), SILENT),
    (
        re.compile(
            r"stream removed|socket closed|connection reset|broken pipe|goaway|ping timeout|watchdog"
            r"|ended the stream|recvmsg|transport is closing",
            re.I,
        ),
        BROKE,
    ),
)
"""How the gRPC library words it, and how we do."""


def of(error: CallFailed) -> str:
    """What is wrong with the member whose call failed so: one of the above, or what it said itself."""
    text = error.text
    if error.code == UNIMPLEMENTED and text == NO_SUCH_METHOD:
        return NOT_FOR_CLIENTS
    if error.code == DEADLINE_EXCEEDED:
        return SILENT
    if not text.startswith("etcdserver: "):
        for pattern, words in _WORDS:
            if pattern.search(text):
                return words
        if NEVER_SENT.search(text):
            return readable(text)
    return text.removeprefix("etcdserver: ") or f"failed with status {error.code}"


def told(status: StatusResponse) -> str:
    """What a member that answers says is wrong; empty if it is well."""
    texts = [text.removeprefix("etcdserver: ") for text in status.errors]
    if any(text.startswith(f"{_BARE_NO_LEADER}: ") for text in texts):
        texts = [text for text in texts if text != _BARE_NO_LEADER]
    elif not status.leader and _BARE_NO_LEADER not in texts:
        texts.insert(0, _BARE_NO_LEADER)
    return "; ".join(texts)


def account(members: Iterable[tuple[str, str]]) -> str:
    """One line of all that is wrong, from addresses and their troubles (empty: none).

    First what members say themselves of a missing leader: that is why the others matter.
    """
    groups: dict[str, list[str]] = {}
    for address, trouble in members:
        if trouble:
            groups.setdefault(trouble, []).append(address)
    ordered = sorted(groups.items(), key=lambda group: not group[0].startswith(_BARE_NO_LEADER))
    leaderless = sum(trouble.startswith(_BARE_NO_LEADER) for trouble in groups)
    return "; ".join(_part(trouble, addresses, leaderless == 1) for trouble, addresses in ordered)


def _part(trouble: str, addresses: list[str], one_account: bool) -> str:
    who = ", ".join(addresses)
    if trouble in _PLURAL:
        return f"{who} {trouble if len(addresses) == 1 else _PLURAL[trouble]}"
    if trouble.startswith(f"{_BARE_NO_LEADER}: ") and one_account:
        return trouble  # it names the members itself
    return f"{who}: {trouble}"
