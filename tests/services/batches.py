"""Calls as a server hands them over, many at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from google.protobuf.message import Message

from connect_kv.frontend.grpc.router import Metadata, MethodRoute, RpcFailed
from tests.services.conftest import until


@dataclass(frozen=True)
class Failed:
    """The status that a call ended with."""

    code: int
    text: str
    trailing: Metadata = ()


Outcome = bytes | Failed


@dataclass
class FakeCall:
    """A `UnaryCall` that remembers how it was answered."""

    message: bytes
    metadata: Metadata = ()
    kept: object | None = None
    outcomes: list[Outcome] = field(default_factory=list)
    given_up: bool = False
    told: Callable[[FakeCall], None] = lambda call: None

    def gone(self) -> bool:
        return self.given_up or bool(self.outcomes)

    def reply(self, message: bytes) -> None:
        self.outcomes.append(message)
        self.told(self)

    def fail(self, code: int, text: str, trailing: Metadata = ()) -> None:
        self.outcomes.append(Failed(code, text, tuple(trailing)))
        self.told(self)

    @property
    def outcome(self) -> Outcome:
        """What it was told, once."""
        (outcome,) = self.outcomes
        return outcome


def calls(requests: Iterable[Message | bytes], metadata: Metadata = ()) -> list[FakeCall]:
    return [
        FakeCall(one if isinstance(one, bytes) else one.SerializeToString(), metadata) for one in requests
    ]


def begin(route: MethodRoute, sent: Sequence[FakeCall]) -> None:
    """Hand them over as those of one turn."""
    assert route.batch is not None
    route.batch(sent)


async def together(route: MethodRoute, sent: Sequence[FakeCall]) -> list[Outcome]:
    """The same, and what each of them is told."""
    begin(route, sent)
    await until(lambda: all(call.outcomes for call in sent))
    await asyncio.sleep(0)
    return [call.outcome for call in sent]


async def alone(route: MethodRoute, call: FakeCall) -> Outcome:
    """What that call hears if it comes by itself, over the unary path."""
    try:
        return await route.unary(call.message, call.metadata)
    except RpcFailed as failed:
        return Failed(failed.status.code, failed.status.text, tuple(failed.status.trailing))
