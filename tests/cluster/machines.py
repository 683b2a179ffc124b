"""Machines that the clusters of these tests serve."""

from connect_kv import Replicated, command, query


class Counter(Replicated):
    def __init__(self) -> None:
        self.total = 0

    @command
    def increment(self, by: int = 1) -> int:
        self.total += by
        return self.total

    @query
    def value(self) -> int:
        return self.total
