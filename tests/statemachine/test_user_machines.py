"""What the machines of users are told of time."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec

from connect_kv import Replicated, command, query
from connect_kv.statemachine.hosted import MachineCall, ReplicatedMachine
from connect_kv.statemachine.user_machines import UserMachines
from connect_kv.storage.memory import MemoryDisk
from connect_kv.storage.overlay import Overlay


class Stamps(Replicated):
    def __init__(self) -> None:
        self.last = 0

    @command
    def stamp(self) -> None:
        self.last = self.log_time

    @query
    def age(self) -> int:
        return self.log_time - self.last


NOTHING = msgspec.msgpack.encode({})


def test_a_query_is_not_run_at_a_time_before_the_last_command() -> None:
    """Its slice may not be in the database yet, and the time of that is older."""
    machines = UserMachines({"stamps": ReplicatedMachine(Stamps())})
    engine = MemoryDisk(random.Random(1)).open(Path("state"))
    machines.execute({"stamps": [MachineCall("stamp", NOTHING, 5_000_000_000, 7)]}, Overlay(engine))
    for asked_at, age in ((3_000_000_000, 0), (6_000_000_000, 1_000_000_000)):
        answer = machines.query("stamps", "age", NOTHING, asked_at, engine)
        assert msgspec.msgpack.decode(answer) == age
