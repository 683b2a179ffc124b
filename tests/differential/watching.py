"""What a watch stream has said: by watch, and whether the responses keep the rules."""

from __future__ import annotations

from typing import Any

from connect_kv.rpc import kv_pb2 as kv
from connect_kv.rpc import watch_pb2 as watch
from tests.differential.target import Stream

WHOLE_STREAM = -1
"""The watch id of progress that is about all watches."""


def created(stream: Stream) -> list[watch.WatchResponse]:
    """The answers to creates."""
    return [one for one in stream.received if one.created]


def cancelled(stream: Stream) -> int:
    """How many watches have ended, refused ones included."""
    return sum(one.canceled for one in stream.received)


def last_revision(stream: Stream) -> int:
    """Of the last event that came."""
    for response in reversed(stream.received):
        if response.events:
            return int(response.events[-1].kv.mod_revision)
    return 0


def last_matching(history: Stream, create: watch.WatchCreateRequest, compactions: set[int]) -> int:
    """The last revision a watch must be told of, of all that `history` has told; 0 if there is none.

    What a compaction may have taken away (`intended.same_watch`) is left out.
    """
    key, end = create.key or b"\x00", create.range_end
    for response in reversed(history.received):
        for event in reversed(response.events):
            deleted = event.type == kv.Event.DELETE
            unwanted = create.NODELETE if deleted else create.NOPUT
            name, revision = event.kv.key, event.kv.mod_revision
            if revision < create.start_revision:
                return 0
            inside = name == key if not end else name >= key and (end == b"\x00" or name < end)
            if inside and unwanted not in create.filters and not (deleted and revision in compactions):
                return int(revision)
    return 0


def has_told(stream: Stream, watch_id: int, revision: int) -> bool:
    """Whether the watch, since it was created last, was told of that revision or was ended."""
    for response in reversed(stream.received):
        if response.watch_id == watch_id:
            if response.events:
                return bool(response.events[-1].kv.mod_revision >= revision)
            if response.canceled:
                return True
            if response.created:
                break
    return revision == 0


def has_progress(stream: Stream) -> bool:
    return any(one.watch_id == WHOLE_STREAM and not one.created for one in stream.received)


def summary(stream: Stream) -> dict[int, list[Any]]:
    """By watch: what was said about it and its events, whatever the responses they came in."""
    by_watch: dict[int, list[Any]] = {}
    for response in list(stream.received):
        said = by_watch.setdefault(response.watch_id, [])
        if response.created or response.canceled:
            kind = "created" * response.created + "canceled" * response.canceled
            said.append((kind, response.compact_revision, response.cancel_reason))
        said.extend(event.SerializeToString(deterministic=True) for event in response.events)
    return by_watch


def check_responses(stream: Stream) -> str | None:
    """What is wrong with the responses themselves; None if nothing.

    Each is of whole revisions unless it is a fragment, revisions rise, and the header is not behind
    the events. Ids are used again after a cancel, so each created response starts anew.
    """
    last: dict[int, int] = {}
    unfinished: set[int] = set()
    for response in list(stream.received):
        id = response.watch_id
        if response.created or response.canceled:
            last.pop(id, None)
            unfinished.discard(id)
            continue
        for position, event in enumerate(response.events):
            revision = event.kv.mod_revision
            before = last.get(id, 0)
            if revision < before:
                return f"watch {id} went back from revision {before} to {revision}"
            if revision == before and position == 0 and id not in unfinished:
                return f"watch {id} has revision {revision} in two responses"
            last[id] = revision
        if response.events and response.header.revision < last[id]:
            return f"watch {id}: header {response.header.revision} is behind its event {last[id]}"
        unfinished.discard(id)
        if response.fragment:
            unfinished.add(id)
    return None
