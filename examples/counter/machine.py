"""The service: a plain class. Each of its copies runs on a machine of its own."""

from connect_kv import Replicated, command, query


class Counter(Replicated):
    """A counter that survives the loss of a minority of its servers."""

    def __init__(self) -> None:
        self.total = 0

    @command  # replicated: runs once on every member, in the same order
    def increment(self, by: int = 1) -> int:
        self.total += by
        return self.total

    @query  # a read that sees every increment acknowledged before it
    def value(self) -> int:
        return self.total
