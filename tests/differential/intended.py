"""Differences that are meant, each listed in docs/api.md with its reason."""

from __future__ import annotations

from typing import Any

from connect_kv.rpc import kv_pb2 as kv

STREAM_SORT = "RangeStream does not support custom sort orders"
STREAM_FILTERS = "RangeStream does not support revision filters"


def explained(request: Any, theirs: Any, ours: Any) -> bool:
    """Whether this difference between two answers is one we intend."""
    return False


def same_watch(theirs: list[Any], ours: list[Any], compactions: set[int]) -> bool:
    """Whether a watch was told the same on both sides.

    A deletion exactly at the compacted revision: etcd keeps it for watches from 3.5.16 on, and we do.
    """
    if theirs == ours:
        return True
    return theirs == [said for said in ours if not _deleted_at(said, compactions)]


def _deleted_at(said: Any, revisions: set[int]) -> bool:
    if not isinstance(said, bytes):
        return False
    event = kv.Event.FromString(said)
    return event.type == kv.Event.DELETE and event.kv.mod_revision in revisions
