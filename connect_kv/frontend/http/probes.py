"""What probes ask: is this member alive, may clients be sent to it, is the cluster well."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from connect_kv.errors import NodeStopped, TimedOut
from connect_kv.events import Signal
from connect_kv.frontend.http.port import Check
from connect_kv.services.executor import CommandExecutor
from connect_kv.services.opening import Opening
from connect_kv.services.status import failure_of

_ALWAYS = frozenset(("Maintenance", "Health", "ServerReflection"))
"""Services that say how this member is, and so answer however it is."""
_READ_SECONDS = 2.0
"""A read that takes longer counts as failed: probes do not wait for ever."""


class CheckResults:
    """What one check has said."""

    __slots__ = ("errors", "successes", "well")

    def __init__(self) -> None:
        self.successes = self.errors = 0
        self.well = False
        """The last time."""

    def note(self, reason: str | None) -> None:
        """It was asked once more."""
        self.well = reason is None
        self.successes += self.well
        self.errors += not self.well


class Health:
    """The checks, over what this member knows."""

    def __init__(
        self,
        replica: CommandExecutor,
        *,
        alarms: Callable[[], frozenset[str]],
        is_learner: Callable[[], bool],
        suspended: Callable[[], Sequence[str]] = tuple,
        opening: Opening | None = None,
    ) -> None:
        """`alarms` are the names of those that are on; `suspended` says which machines do not go on here;
        `opening` says when clients are served.
        """
        self._suspended = suspended
        self._opening = opening or Opening.at_once()
        self._replica = replica
        self._alarms = alarms
        self._is_learner = is_learner
        self._caught_up = False
        self.changed = Signal()
        """What `serving` says may be different now. Whoever knows a reason of it fires it, too."""
        self.successes = 0
        self.failures = 0
        self.results: dict[tuple[str, str], CheckResults] = {}
        """What checks of a kind, by name, have said; those that were asked."""

    async def run(self) -> None:
        """Until this member has everything that was committed when it started; then it may serve."""
        with suppress(NodeStopped):
            await self._opening.opened()
            await self._replica.until_caught_up()
            self._caught_up = True
            self.changed.fire()

    def serving(self, service: str) -> bool:
        """Whether clients may call that service here, by its full name; empty: this member.

        What a member without a leader answers is for operators, not for load balancers; a learner is not
        asked (`frontend.grpc.router`).
        NOSPACE is no reason: reads and deletes go on, and the other members have no more room.
        """
        if service.rpartition(".")[2] in _ALWAYS:
            return True
        return self._caught_up and self._replica.has_leader() and "CORRUPT" not in self._alarms()

    @property
    def live(self) -> Mapping[str, Check]:
        """Whether the process works at all."""
        return self._counted("livez", {"serializable_read": self._serializable})

    @property
    def ready(self) -> Mapping[str, Check]:
        """Whether clients may be sent here. The first linearizable read also waits until this member
        has applied everything that was committed when it started.
        """
        return self._counted(
            "readyz",
            {
                "data_corruption": self._corruption,
                "serializable_read": self._serializable,
                "linearizable_read": self._linearizable,
                "non_learner": self._non_learner,
                "machines": self._machines,
            },
        )

    def _counted(self, kind: str, checks: Mapping[str, Check]) -> Mapping[str, Check]:
        """Those checks, with a note of what each answers."""

        def counted(name: str, check: Check) -> Check:
            async def run() -> str | None:
                reason = await check()
                self.results.setdefault((kind, name), CheckResults()).note(reason)
                return reason

            return run

        return {name: counted(name, check) for name, check in checks.items()}

    async def health(self, serializable: bool, excluded: frozenset[str]) -> str | None:
        """The reason why this member is not healthy, if there is one."""
        reason = await self._health(serializable, excluded)
        if reason is None:
            self.successes += 1
        else:
            self.failures += 1
        return reason

    async def _health(self, serializable: bool, excluded: frozenset[str]) -> str | None:
        for alarm in ("NOSPACE", "CORRUPT"):
            if alarm in self._alarms() and alarm not in excluded:
                return f"ALARM {alarm}"
        if serializable:
            return None
        if not self._replica.has_leader():
            return "RAFT NO LEADER"
        failed = await self._linearizable()
        return None if failed is None else f"RANGE ERROR:{failed}"

    async def _corruption(self) -> str | None:
        return "alarm activated: CORRUPT" if "CORRUPT" in self._alarms() else None

    async def _serializable(self) -> str | None:
        return None  # that this runs at all is the answer: local reads need nothing else

    async def _linearizable(self) -> str | None:
        try:
            async with asyncio.timeout(_READ_SECONDS):
                await self._opening.wait()
                await self._replica.barrier()
        except TimeoutError as error:
            return failure_of(TimedOut(str(error) or self._replica.why())).message
        except Exception as error:
            return failure_of(error).message
        return None

    async def _machines(self) -> str | None:
        return "; ".join(self._suspended()) or None

    async def _non_learner(self) -> str | None:
        return "not supported for learner" if self._is_learner() else None
