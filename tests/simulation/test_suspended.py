"""A machine that is suspended on one member until the log that it would need is gone."""

from functools import partial

import pytest

from connect_kv import Replicated, command
from connect_kv.interfaces import Identity
from connect_kv.raft.types import Restored
from connect_kv.server import composition, directory
from connect_kv.statemachine.machine_snapshots import HostConfig
from connect_kv.storage.log_store import EngineLogStore
from connect_kv.storage.state_dirs import StateDatabase, StateDirs
from connect_kv.testing.simulation.invariants import Ledger
from connect_kv.testing.simulation.world import World, WorldConfig


class Total(Replicated):
    """Adds up."""

    def __init__(self) -> None:
        self.total = 0

    @command
    def add(self, amount: int) -> int:
        """The new total."""
        self.total += amount
        return self.total


def test_a_member_whose_machine_needs_a_log_that_is_gone_fetches_the_whole_state(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A gibibyte of log in service; here, what a few commands take.
    monkeypatch.setattr(composition, "HostConfig", partial(HostConfig, suspended_bytes=200))
    # That a suspended machine answers otherwise than the others' is what it is for.
    monkeypatch.setattr(Ledger, "_differs", lambda *answers: None)
    reasons: list[str] = []
    replace = directory._replace_state

    def replaced(
        log: EngineLogStore, states: StateDirs, identity: Identity, reason: str
    ) -> tuple[StateDatabase, Restored]:
        reasons.append(reason)
        return replace(log, states, identity, reason)

    monkeypatch.setattr(directory, "_replace_state", replaced)
    world = World(WorldConfig(seed=1, machines={"total": Total}))

    async def main() -> None:
        world.start()
        leader = await world.agreed()
        other = next(host for host in world.hosts if host is not leader)
        other.machines = {}
        await other.kill()
        async with world.client("caller") as client:
            machine = client.machine("total", Total)
            for number in range(200):
                assert await machine.call(Total.add, 1) == number + 1
                await client.put(f"key-{number % 5}", b"value")
        await world.agreed()
        other.machines = {"total": Total}
        assert "total" in other.running.host.machines.suspended
        await other.kill()
        await world.until(lambda: other.serves, 20, f"{other.name} serves")
        assert reasons == ["the log that is needed for total, which stopped long ago, is gone"]
        async with world.client_of("asks it", other.client_address) as client:
            assert await client.machine("total", Total).call(Total.add, 1) == 201
        assert not other.running.host.machines.suspended
        await world.stop()

    world.run(main())
