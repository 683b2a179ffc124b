"""The seams: what each part may expect of the others. Everything here has a real form and one for tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from connect_kv.peer_protocol import Description, Hello, HelloReply, Loss, PeerMessage, SnapshotOffer
from connect_kv.raft.ready import Ready
from connect_kv.raft.types import Entry, EntryId, Membership, Restored, SnapshotMeta

R = TypeVar("R")
T = TypeVar("T")


class Clock(Protocol):
    """The only source of time above the core."""

    def now(self) -> float:
        """Monotonic seconds."""

    def wall(self) -> int:
        """Nanoseconds since 1970, as this machine believes."""

    async def sleep(self, seconds: float) -> None:
        """Wait on this clock."""


class Worker(Protocol):
    """One thread that runs calls in the order given; blocking work goes here (DESIGN: threads)."""

    async def run(self, call: Callable[[], T]) -> T:
        """Run it after everything given before, and return or raise what it does.

        A cancelled caller stops waiting; the call itself is still run.
        """

    async def close(self) -> None:
        """Wait for everything given so far, then end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Whose data directory this is. Written once, when the directory is first used."""

    cluster_id: int
    node_id: int
    name: str
    directory_id: bytes
    """Random; peers note it, so that a wiped directory is recognised (DESIGN: amnesia)."""


class LogStore(Protocol):
    """The Raft log and hard state on disk. Methods that write run on the log worker, in order.

    Any StorageError is final for the process.
    """

    @property
    def identity(self) -> Identity | None:
        """None in a new directory."""

    def bootstrap(self, identity: Identity, membership: Membership, state_name: str) -> None:
        """Make a new directory this member's: an empty log under `membership`. Synced."""

    @property
    def confirmed(self) -> bool:
        """Whether a majority has noted this directory, so that it may vote and campaign."""

    def confirm(self) -> None:
        """Record, synced, that a majority has noted this directory."""

    def noted_directory(self, node_id: int) -> bytes | None:
        """The directory id under which that member first said hello here."""

    def note_directory(self, node_id: int, directory_id: bytes) -> None:
        """Record, synced, under which directory id that member said hello."""

    def load(self) -> Restored:
        """What is on disk. Raises CorruptStorage if it does not fit together."""

    def save(self, readies: Sequence[Ready]) -> None:
        """Store the disk part of all of them, in order, as one atomic batch.

        Durable on return if any has `must_sync`. A Ready with `install` is not given here but to
        `install` first, then here for its entries.
        """

    def entries(self, start: int, end: int, max_bytes: int) -> list[Entry]:
        """Entries of ``[start, end)``: the first, and more while they fit. Verifies checksums."""

    def install(self, state_name: str, meta: SnapshotMeta) -> None:
        """In one synced batch: `state_name` is the current state database, durable up to `meta.last`,
        and the log is empty after `meta.last` (entries beyond it that match are kept by nobody).
        """

    def set_durable(self, index: int) -> None:
        """Record that the current state database is on disk up to `index`. Synced."""

    def compact(self, compacted: EntryId, membership: Membership) -> None:
        """Forget entries up to `compacted`, never beyond the durable index."""

    @property
    def durable_index(self) -> int:
        """Up to where the current state database is known to be on disk."""

    @property
    def state_name(self) -> str:
        """The current state database's directory name."""

    def close(self) -> None:
        """Close the database."""


class PeerReceiver(Protocol):
    """What a transport hands incoming traffic to. Called on the loop."""

    async def hello(self, hello: Hello) -> HelloReply:
        """Judge a stream's sender, and durably note its directory id the first time."""

    def hello_reply(self, node_id: int, reply: HelloReply) -> None:
        """What a peer answered to our own hello."""

    def receive(self, message: PeerMessage) -> None:
        """One message, from a sender that was welcomed. Never blocks or raises."""

    def unreachable(self, node_id: int, loss: Loss) -> None:
        """A stream to that member broke, or messages to it were dropped."""

    async def receive_snapshot(self, offer: SnapshotOffer, chunks: AsyncIterator[bytes]) -> None:
        """Stage and install it; chunks are already verified. Raises to refuse."""

    async def describe(self, asker: Hello, peer_address: str) -> Description:
        """Answer a starting member. `asker.source` is 0 if it does not know its id yet."""

    async def answer(self, hello: Hello, method: str, request: bytes) -> bytes:
        """Carry out a call for another member. Raises PermissionError if it is not welcome."""


class Transport(Protocol):
    """Messages between members. `send` may drop, delay, reorder; one ordered stream per peer in practice."""

    async def start(self, receiver: PeerReceiver, hello: Callable[[int], Hello]) -> None:
        """Listen, and hand what comes to `receiver`; `hello(target)` introduces us."""

    def set_peers(self, addresses: Mapping[int, str]) -> None:
        """Replace the known peers: id to ``host:port``. Streams to others are closed."""

    def send(self, message: PeerMessage) -> None:
        """Queue it for its target. Never blocks or raises; a full queue drops and reports unreachable."""

    def flush(self) -> None:
        """Let what was queued leave now, rather than at the end of this turn of the loop."""

    async def send_snapshot(self, offer: SnapshotOffer, chunks: AsyncIterator[bytes]) -> None:
        """Stream it to ``offer.hello.target`` and return once it is installed there. Raises OSError."""

    async def describe(self, address: str, asker: Hello, peer_address: str) -> Description:
        """Ask the member at `address`. Raises OSError if it cannot be reached."""

    async def ask(self, target: int, method: str, request: bytes) -> bytes:
        """Have that member carry out a call, and return its answer; wait as long as the caller does.

        Raises ConnectionRefusedError if it certainly was not begun, another OSError if that is unknown.
        """

    async def close(self) -> None:
        """End all streams and stop listening."""


class SnapshotSource(Protocol):
    """A frozen state, to be sent to a follower. Close it."""

    @property
    def last_applied(self) -> int:
        """The index it stands at."""

    @property
    def approximate_bytes(self) -> int:
        """Roughly how much `chunks` will yield."""

    def chunks(self) -> AsyncIterator[bytes]:
        """The state in pieces of at most 1 MiB plus one record, yielding to the loop between slices."""

    def close(self) -> None:
        """Give the view back."""


class ReplicatedState(Protocol[R]):
    """All that is replicated, as the node sees it: one apply, one snapshot, one durable index.

    Calls do not overlap, except that `make_durable` and a snapshot's chunks may run beside `apply`.
    """

    @property
    def last_applied(self) -> int:
        """The last index whose effect reads can see."""

    def elapsed(self, members: Iterable[int]) -> int | None:
        """Nanoseconds that leaders have measured, as of `last_applied`.

        None while one of these members would not understand an entry that says so.
        """

    async def apply(self, entries: Sequence[Entry]) -> list[Sequence[R]]:
        """Apply committed entries, contiguous after `last_applied`, as one storage batch.

        Returns, for each entry, one result per command in it (none for other kinds). A refusal is
        a result. Any exception is final: the node stops.
        """

    async def make_durable(self) -> int:
        """Force what was applied to disk.

        Returns the index up to which everything can be rebuilt without the log.
        """

    async def snapshot(self) -> SnapshotSource:
        """Freeze the state as of `last_applied`. Returns soon."""

    async def stage(self, meta: SnapshotMeta, chunks: AsyncIterator[bytes]) -> str:
        """Fill a new state database with a snapshot from elsewhere, sync and check it; returns its name.

        Raises CorruptStorage if it is not whole or stands at another index. The current one stays in use.
        """

    async def switch(self, state_name: str) -> None:
        """Use that staged database from now on and delete the old one."""

    async def close(self) -> None:
        """End cleanly."""


class StateMachine(Protocol[R]):
    """The low-level form of a user's machine: no clock, no randomness, no I/O. One thread calls it."""

    last_applied: int

    def apply(self, entries: Sequence[Entry]) -> list[R]:
        """One result per entry, in order; refuse a request by returning it refused.

        `entry.data` is the command. An exception stops the node.
        """

    def query(self, request: bytes) -> R:
        """Read without changing anything."""

    def snapshot(self) -> Iterator[bytes]:
        """The whole state, frozen now: later applies must not show."""

    def restore(self, last_applied: int, chunks: Iterable[bytes]) -> None:
        """Replace the state by what `snapshot` gave elsewhere."""
