"""The rules of sessions in the plainest form, to compare with: nothing is stored, nothing is clever."""

from __future__ import annotations

from dataclasses import dataclass, field

from connect_kv.statemachine.sessions import SessionLimits

SECOND = 1_000_000_000


@dataclass
class ModelSession:
    ttl: int
    used_at: int
    used_index: int
    floor: int = 0
    replies: dict[int, str] = field(default_factory=dict)


class Model:
    """Answers "run", "again:<reply>", "expired" or "full"."""

    def __init__(self, limits: SessionLimits) -> None:
        self.limits = limits
        self.sessions: dict[int, ModelSession] = {}

    def entry(self, time: int) -> None:
        for id, session in list(self.sessions.items()):
            if session.used_at + session.ttl * SECOND < time:
                del self.sessions[id]

    def open(self, id: int, ttl: int, index: int, time: int) -> None:
        if len(self.sessions) >= self.limits.sessions:
            del self.sessions[min(self.sessions, key=lambda i: (self.sessions[i].used_index, i))]
        self.sessions[id] = ModelSession(ttl, time, index)

    def close(self, id: int) -> bool:
        return self.sessions.pop(id, None) is not None

    def command(self, id: int, number: int, floor: int, index: int, time: int, reply: str) -> str:
        session = self.sessions.get(id)
        if session is None:
            return "expired"
        session.used_at, session.used_index = time, index
        session.floor = max(session.floor, floor)
        session.replies = {n: r for n, r in session.replies.items() if n >= session.floor}
        if number < session.floor:
            return "expired"
        if number in session.replies:
            return "again:" + session.replies[number]
        if len(session.replies) >= self.limits.replies:
            return "full"
        session.replies[number] = reply
        return "run"
