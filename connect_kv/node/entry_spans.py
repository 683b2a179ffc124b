"""Spans of the entries that hold traced proposals: on every member, while its disk takes them and while they
are applied. What is traced stands in the entries themselves, so it needs no message of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from connect_kv.raft.types import Entry, EntryKind
from connect_kv.tracing import OpenSpan, SpanKind, Tracer

MOST_ENTRIES = 4096
"""Traced ones that wait to be applied; of further ones only the writing is told."""


class EntrySpans:
    """Of one member."""

    def __init__(self, tracer: Tracer, member: str, traces: Callable[[bytes], Sequence[str]]) -> None:
        """`traces`: the spans below which the proposals of an entry's data were made."""
        self._tracer = tracer
        self._member = member
        self._traces = traces
        self._written: dict[int, Sequence[str]] = {}

    def writing(self, entries: Iterable[Entry]) -> list[OpenSpan]:
        """The disk is about to take these, as they came from a leader or were proposed here."""
        spans: list[OpenSpan] = []
        for entry in entries:
            if entry.kind is not EntryKind.COMMAND or not (parents := self._traces(entry.data)):
                continue
            if len(self._written) < MOST_ENTRIES:
                self._written[entry.index] = parents
            spans += self._begin("connect_kv.log.write", entry, parents)
        return spans

    def applying(self, entries: Sequence[Entry]) -> list[OpenSpan]:
        """These are about to be applied. Those of an earlier run are not told: they are only run again."""
        if not self._written:
            return []
        spans: list[OpenSpan] = []
        for entry in entries:
            if parents := self._written.pop(entry.index, ()):
                spans += self._begin("connect_kv.apply", entry, parents)
        return spans

    def _begin(self, name: str, entry: Entry, parents: Sequence[str]) -> list[OpenSpan]:
        attributes: dict[str, str | int] = {
            "connect_kv.member": self._member,
            "connect_kv.raft.term": entry.term,
            "connect_kv.raft.index": entry.index,
        }
        return [self._tracer.begin(name, parent, SpanKind.INTERNAL, attributes) for parent in parents]
