"""The cluster at one moment, for looking at: what members say of themselves, and how much they do."""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from connect_kv.cli import status
from connect_kv.cli.scrape import Scrape, rate, scrape
from connect_kv.cli.settings import Settings
from connect_kv.cli.status import Row
from connect_kv.client.client import Client
from connect_kv.credentials import Tls, client_credentials

_DAY = 86_400.0
EXPIRY_DAYS = 14
CLOCK_SECONDS = 1.0
"""A larger difference between two members' clocks is worth a word."""

_ALARM = re.compile(r"memberID:([0-9]+) alarm:(\w+)")
_TO_DO: Mapping[str, str] = {
    "NOSPACE": "delete keys or compact, `connect-kv defrag`, give the disk room or raise --quota-bytes; then "
    "`connect-kv alarm disarm`",
    "CORRUPT": "its data differs: `connect-kv hash` says whose; replace that member, then `connect-kv alarm "
    "disarm`",
}


@dataclass(frozen=True, slots=True)
class Work:
    """What one member does, a second; None where that is not known (yet)."""

    puts: float | None = None
    """Applied, whoever was asked: about the same on all members."""
    ranges: float | None = None
    events: float | None = None
    """Sent to watches."""
    calls: float | None = None
    """Calls of clients, of any kind."""
    fsync: float | None = None
    """Mean seconds until a batch of its log was durable."""
    connections: float | None = None


@dataclass(frozen=True, slots=True)
class MemberView:
    """What is known of one member, and how busy it is."""

    row: Row
    work: Work
    clock: float | None
    """Seconds by which its clock is ahead of the leader's; of the first that answers, without one."""


@dataclass(frozen=True, slots=True)
class Advice:
    """What is wrong, and what to do about it."""

    who: str
    wrong: str
    to_do: str = ""


@dataclass(frozen=True, slots=True)
class Overview:
    """All of it."""

    at: float
    """Seconds since 1970."""
    members: Sequence[MemberView]
    advice: Sequence[Advice]

    @property
    def healthy(self) -> bool:
        """Whether nothing is to be done."""
        return all(one.row.healthy for one in self.members) and not self.advice


class ClusterObserver:
    """Takes one overview after the other; rates are those since the one before."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._context = _context(settings)
        self._before: dict[int, Scrape] = {}

    async def look(self, client: Client) -> Overview:
        """Ask every member. What does not answer within the time limit of a call is shown so."""
        rows = await status.collect(self._settings, client)
        scrapes = await asyncio.gather(*(self._scrape(row) for row in rows))
        found = dict(zip((row.id for row in rows), scrapes, strict=True))
        works = [_work(self._before.get(row.id), found[row.id]) for row in rows]
        base = _base_clock(rows, scrapes)
        members = [
            MemberView(row, work, _difference(one, base))
            for row, work, one in zip(rows, works, scrapes, strict=True)
        ]
        self._before = {node_id: one for node_id, one in found.items() if one is not None}
        return Overview(time.time(), members, advice(members, found))

    async def _scrape(self, row: Row) -> Scrape | None:
        if row.status is None:
            return None
        return await scrape(row.endpoint, self._context, self._settings.timeout)


def _context(settings: Settings) -> ssl.SSLContext | None:
    """The TLS context of the calls over gRPC, for HTTP; None in the clear."""
    if not settings.uses_tls:
        return None
    return client_credentials(settings.files or Tls()).client_context(["http/1.1"])


def _work(before: Scrape | None, now: Scrape | None) -> Work:
    if now is None:
        return Work()
    fsyncs = rate(before, now, ["etcd_disk_wal_fsync_duration_seconds_count"])
    seconds = rate(before, now, ["etcd_disk_wal_fsync_duration_seconds_sum"])
    return Work(
        puts=rate(before, now, ["etcd_mvcc_put_total"]),
        ranges=rate(before, now, ["etcd_mvcc_range_total"]),
        events=rate(before, now, ["etcd_debugging_mvcc_events_total"]),
        calls=rate(before, now, ["grpc_server_started_total"]),
        fsync=seconds / fsyncs if seconds is not None and fsyncs else None,
        connections=now.total("connect_kv_connections"),
    )


def _base_clock(rows: Sequence[Row], scrapes: Sequence[Scrape | None]) -> float | None:
    """Whose clock the others are compared with: this machine's own drops out."""
    known = [
        (not _leads(row), one.clock_ahead)
        for row, one in zip(rows, scrapes, strict=True)
        if one is not None and one.clock_ahead is not None
    ]
    return min(known, key=lambda one: one[0])[1] if known else None


def _leads(row: Row) -> bool:
    return row.status is not None and status.role(row.status) == "leader"


def _difference(one: Scrape | None, base: float | None) -> float | None:
    if one is None or base is None or one.clock_ahead is None:
        return None
    return one.clock_ahead - base


def advice(members: Sequence[MemberView], scrapes: Mapping[int, Scrape | None]) -> list[Advice]:
    """What is wrong, worst first: each alarm once, however many members tell of it."""
    names = {one.row.id: _who(one.row) for one in members}
    found = [
        Advice(names.get(node_id, f"{node_id:x}"), f"alarm {alarm}", _TO_DO.get(alarm, "docs/operations.md"))
        for node_id, alarm in sorted(_alarms(members))
    ]
    for one in members:
        name, row = _who(one.row), one.row
        if row.status is None:
            wrong = "; ".join(text for text in (row.problem, row.said) if text)
            mend = "" if row.vouched else "start it; if its disk is lost: `connect-kv member --help`"
            found.append(Advice(name, wrong, mend))
            continue
        said = [text for text in row.status.errors if not _ALARM.search(text)]
        for text in dict.fromkeys(one.removeprefix("etcdserver: ") for one in said):
            mend = "a majority of the voters must run" if text == "no leader" else ""
            found.append(Advice(name, text, mend))
        if one.clock is not None and abs(one.clock) > CLOCK_SECONDS:
            side = "ahead of" if one.clock > 0 else "behind"
            wrong = f"its clock is {abs(one.clock):.1f} s {side} the leader's"
            found.append(Advice(name, wrong, "have all machines' clocks set by NTP"))
        measured = scrapes.get(row.id)
        if measured is not None:
            found += _of_measurements(name, measured)
    return found


def _who(row: Row) -> str:
    return row.name or row.endpoint


def _alarms(members: Sequence[MemberView]) -> set[tuple[int, str]]:
    return {
        (int(match[1]), match[2])
        for one in members
        if one.row.status
        for text in one.row.status.errors
        for match in _ALARM.finditer(text)
    }


def _of_measurements(name: str, measured: Scrape) -> list[Advice]:
    found = []
    for labels, suspended in measured.samples.get("connect_kv_machine_suspended", {}).items():
        if suspended:
            machine = dict(labels).get("machine", "")
            found.append(
                Advice(name, f"machine {machine} is suspended", f"`connect-kv machine status {machine}`")
            )
    for labels, expiry in measured.samples.get("connect_kv_tls_expiry_timestamp_seconds", {}).items():
        days = (expiry - measured.wall) / _DAY
        if days < EXPIRY_DAYS:
            use = dict(labels).get("use", "")
            ends = f"expires in {days:.0f} days" if days > 0 else "has expired"
            found.append(Advice(name, f"its certificate for {use} {ends}", "renew it: docs/security.md"))
    return found
