"""Happenings: what changed lately, as one member saw it; the newest of it, in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence

from connect_kv.raft.types import Membership
from connect_kv.rpc.dashboard_pb2 import Happening

MOST = 100
_LONGEST = 300


class Happenings:
    """A bounded list. Told by those who know (`server.dashboard`)."""

    def __init__(self, member: int, wall: Callable[[], int]) -> None:
        """`wall`: nanoseconds since 1970."""
        self._member = member
        self._wall = wall
        self._kept: deque[Happening] = deque(maxlen=MOST)

    def note(self, kind: str, text: str) -> None:
        """It happened now."""
        self._kept.append(Happening(wall=self._wall(), kind=kind, text=text[:_LONGEST], member=self._member))

    @property
    def kept(self) -> Sequence[Happening]:
        """The oldest in front."""
        return list(self._kept)


def of_membership(old: Membership, new: Membership, name: Callable[[int], str]) -> list[str]:
    """What is to be said of a change of members."""
    before, now = set(old.node_ids), set(new.node_ids)
    said = []
    for node_id in sorted(now - before):
        learner = node_id in new.learners
        said.append(f"{name(node_id)} was added as a {'learner' if learner else 'voter'}")
    said += [f"{name(node_id)} was removed" for node_id in sorted(before - now)]
    said += [f"{name(node_id)} is a voter now" for node_id in sorted(old.learners & new.voters)]
    for node_id in sorted(before & now):
        was, is_now = old.member(node_id), new.member(node_id)
        if was is not None and is_now is not None and was.peer_address != is_now.peer_address:
            said.append(f"{name(node_id)} has the peer address {is_now.peer_address}")
    return said


def of_versions(old: Mapping[str, int], new: Mapping[str, int]) -> list[tuple[str, str]]:
    """Machines, and what is to be said of each, by the version that is active; 0: it has not begun."""
    return [
        (machine, f"machine {machine} {'began with' if not old.get(machine) else 'has'} version {version}")
        for machine, version in sorted(new.items())
        if version and version != old.get(machine)
    ]
