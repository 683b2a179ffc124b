"""What the leader does by itself for the versions of machines: it proposes what all members are ready for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from connect_kv.errors import ConnectKvError, NodeStopped
from connect_kv.interfaces import Clock
from connect_kv.node.node import RaftNode
from connect_kv.rpc.versions_pb2 import MachineChange
from connect_kv.services.executor import BY_SERVER, encode_command, field_number
from connect_kv.statemachine.activation import Claims, decide
from connect_kv.statemachine.host import MachineHost

logger = logging.getLogger(__name__)

EVERY_SECONDS = 0.1
_TRY_AGAIN_SECONDS = 10.0
"""After an upgrade failed on a copy of the state."""
_CHANGE = field_number("machine_change")


class Activations:
    """`run` is its task on every member."""

    def __init__(
        self,
        node: RaftNode[bytes],
        host: MachineHost,
        *,
        claims: Callable[[], Mapping[str, Claims | None]],
        understood: Callable[[int], bool],
        clock: Clock,
        patience: float,
    ) -> None:
        """`understood`: whether all members say that they can apply a kind of command.

        A machine is founded without a member that was not heard for `patience` seconds.
        """
        self._node = node
        self._host = host
        self._claims = claims
        self._understood = understood
        self._clock = clock
        self._patience = patience
        self._leads_since: float | None = None
        self._failed: dict[str, tuple[float, str]] = {}
        self.waits: dict[str, str] = {}
        """Whom each machine waits for, as the leader sees it."""

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await self._clock.sleep(EVERY_SECONDS)
            if not self._node.is_leader:
                self._leads_since = None
                self.waits.clear()
                continue
            if self._leads_since is None:
                self._leads_since = self._clock.now()
            try:
                for name in self._host.machines.machines:
                    await self._look_at(name)
            except NodeStopped:
                return
            except ConnectKvError as error:
                logger.debug("an activation was not proposed: %s", error)

    async def _look_at(self, name: str) -> None:
        machines = self._host.machines
        if name in machines.suspended or name in self._host.retired:
            return
        assert self._leads_since is not None
        patient = self._clock.now() - self._leads_since >= self._patience
        decision = decide(
            name, machines.machines[name], machines.first_chunks(name), self._claims(), patient=patient
        )
        self._tell(name, decision.waits)
        if decision.change is not None and self._all_understand() and await self._works(decision.change):
            await self._node.propose(encode_command(_CHANGE, decision.change.SerializeToString(), BY_SERVER))

    def _all_understand(self) -> bool:
        """A member that was not heard may be founded without; one that was, and is older, may not."""
        common = self._node.common_highest_command
        return common >= _CHANGE or (common == 0 and self._understood(_CHANGE))

    async def _works(self, change: MachineChange) -> bool:
        """An upgrade that fails on a copy of the state is not proposed: it would stop the machine on all."""
        name, activate = change.machine, change.activate
        if not 0 < activate.origin < activate.version:
            return True
        since, _ = self._failed.get(name, (-_TRY_AGAIN_SECONDS, ""))
        if self._clock.now() - since < _TRY_AGAIN_SECONDS:
            return False
        reason = await self._host.try_upgrade(name, activate.version)
        if reason is None:
            self._failed.pop(name, None)
            return True
        self._failed[name] = (self._clock.now(), reason)
        logger.error("version %d of machine %r is not activated: %s", activate.version, name, reason)
        return False

    def _tell(self, name: str, waits: str) -> None:
        if waits != self.waits.get(name, ""):
            logger.info("a version of a machine is not active", extra={"machine": name, "waits": waits})
        self.waits[name] = waits
