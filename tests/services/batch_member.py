"""A member of which only the services of keys are there, for calls that come together."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

from connect_kv.frontend.grpc.router import MethodRoute, Router
from connect_kv.frontend.grpc.services import add_services
from connect_kv.kv.machine import KvMachine
from connect_kv.kv.moment import Moment
from connect_kv.metrics import Metrics
from connect_kv.rpc.command_pb2 import CommandBatch, Failure, Result
from connect_kv.rpc.kv_pb2 import (
    PutRequest,
)
from connect_kv.services.audit import Audit
from connect_kv.services.executor import CommandExecutor
from connect_kv.services.kv import KvService
from connect_kv.services.opening import Opening
from connect_kv.services.quota import Quota
from connect_kv.services.streams import Streams
from connect_kv.services.turns import Turns
from connect_kv.storage.memory import MemoryDisk
from tests.services.batches import Failed, Outcome
from tests.services.conftest import FakeNode, everybody

MOST = 1000


class Ticking:
    """A clock that goes on by as much whenever it is looked at."""

    def __init__(self, step: float = 0.0) -> None:
        self.step = step
        self.time = 0.0

    def now(self) -> float:
        self.time += self.step
        return self.time

    def wall(self) -> int:
        return 0

    async def sleep(self, seconds: float) -> None:
        await asyncio.Event().wait()


def counted(batch: CommandBatch) -> list[Result]:
    """Answers puts with revisions in order, and refuses those of keys that begin with ``bad``."""
    results = []
    for number, command in enumerate(batch.commands, 10):
        result = Result()
        if command.put.key.startswith(b"bad"):
            result.failure.CopyFrom(Failure(code=5, message="etcdserver: requested lease not found"))
        elif command.WhichOneof("request") == "put":
            result.put.header.revision = number
        else:
            result.delete_range.header.revision = number
        results.append(result)
    return results


class Member:
    """The services of keys around a node that answers by a function."""

    def __init__(
        self,
        *,
        node: FakeNode | None = None,
        limit: int = -1,
        used: int = 0,
        learner: bool = False,
        opening: Opening | None = None,
        clock: Ticking | None = None,
        audit: Audit | None = None,
        **options: Any,
    ) -> None:
        self.node = node or FakeNode(counted)
        self.clock = clock or Ticking()
        self.executor = CommandExecutor(
            self.node,
            cluster_id=10,
            member_id=1,
            revision=lambda: 4,
            **{"max_request_bytes": MOST, "time_limit": 5.0, **options},
        )
        self.kv = KvMachine()
        self.kv.load(MemoryDisk(random.Random(1)).open(Path("state")), Moment())
        self.used = used
        self.exceeded = 0
        self.measured = 0
        self.quota = Quota(limit, clock=self.clock, measure=self._measure, exceeded=self._exceeded)
        self.metrics = Metrics(process=False)
        self.turns = Turns(self.clock.now)
        self.service = KvService(self.executor, self.kv, self.quota, everybody(), self.turns)
        self.router = Router(
            Streams(self.executor.has_leader, patience=0.05),
            self.metrics,
            self.executor.has_leader,
            lambda: learner,
            opening,
            audit=audit,
            now=self.clock.now,
        )
        add_services(self.router, {"KV": self.service})

    def route(self, method: str) -> MethodRoute:
        return self.router.route(f"/etcdserverpb.KV/{method}")

    def counts(self, method: str) -> dict[str, float]:
        """What is counted of a method."""
        found = {}
        for family in self.metrics.registry.collect():
            for sample in family.samples:
                if sample.labels.get("grpc_method") == method:
                    found[f"{sample.name} {sample.labels.get('grpc_code', '')}"] = sample.value
        return found

    async def _measure(self) -> int:
        self.measured += 1
        return self.used

    def _exceeded(self) -> None:
        self.exceeded += 1


def puts(count: int, value: bytes = b"v") -> list[PutRequest]:
    return [PutRequest(key=b"k%d" % number, value=value) for number in range(count)]


def code(outcome: Outcome) -> int:
    assert isinstance(outcome, Failed), outcome
    return outcome.code
