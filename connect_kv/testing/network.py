"""What joins the nodes of a chaos run, and can be made bad between any two of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Quality:
    """Of one direction between two nodes."""

    blocked: bool = False
    loss: float = 0.0
    """Share of packets that vanish."""
    delay: float = 0.0
    """Seconds each packet takes longer."""
    jitter: float = 0.0
    """Up to so many seconds more, each packet by itself: they overtake each other."""
    duplicate: float = 0.0
    """Share of packets that arrive twice."""


PERFECT = Quality()


@dataclass(frozen=True, slots=True)
class NodeLocation:
    """Where a node runs."""

    host: str
    ports: tuple[int, int, int]
    """For clients, peers and HTTP."""
    peer_address: str
    """What the others dial."""
    wrapper: tuple[str, ...] = ()
    """Command its process is started under."""


class Network(Protocol):
    """Places for nodes, and the links between them. Clients always reach every node."""

    kind: str
    """What kind of network it is, for the report."""

    async def start(self, names: Sequence[str]) -> dict[str, NodeLocation]:
        """Make a place for each."""

    def started(self, name: str, pid: int) -> None:
        """A node runs now, as that process."""

    def set(self, source: str, target: str, quality: Quality) -> None:
        """What `source` sends to `target` fares like that from now on."""

    async def close(self) -> None:
        """Undo everything. Safe to repeat."""


class Links:
    """The links of some nodes, by the shapes of faults."""

    def __init__(self, network: Network, names: Sequence[str]) -> None:
        self._network = network
        self._names = tuple(names)

    def all(self, quality: Quality) -> None:
        """Every link, both ways."""
        for source in self._names:
            for target in self._names:
                if source != target:
                    self._network.set(source, target, quality)

    def heal(self) -> None:
        """Make every link perfect again."""
        self.all(PERFECT)

    def around(self, name: str, quality: Quality, *, sends: bool = True, receives: bool = True) -> None:
        """Everything one node sends, or receives, or both."""
        for other in self._names:
            if other != name and sends:
                self._network.set(name, other, quality)
            if other != name and receives:
                self._network.set(other, name, quality)

    def between(self, first: str, second: str, quality: Quality) -> None:
        """Both directions of the link between two nodes."""
        self._network.set(first, second, quality)
        self._network.set(second, first, quality)
