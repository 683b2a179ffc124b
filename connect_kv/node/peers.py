"""What other members may tell this one: who they are, messages, snapshots (`interfaces.PeerReceiver`)."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from functools import partial
from typing import Generic, TypeVar

from connect_kv.errors import ConnectKvError, MemberRemoved, RefusedToStart, StorageError
from connect_kv.interfaces import LogStore
from connect_kv.node.context import NodeContext
from connect_kv.node.membership import (
    AddressBook,
    PeerVersions,
    Refusals,
    has_majority,
    is_certified,
    verify_hello,
)
from connect_kv.node.snapshots import SnapshotRefused
from connect_kv.node.status import Contacts
from connect_kv.peer_protocol import (
    Description,
    Hello,
    HelloReply,
    HelloVerdict,
    Loss,
    PeerMessage,
    SnapshotOffer,
)
from connect_kv.raft.types import Member, Membership

R = TypeVar("R")

logger = logging.getLogger(__name__)

WIPED = (
    "this member has been started before with another data directory, and may have voted or "
    "acknowledged writes then: remove it from the cluster and add it again"
)


class Peers(Generic[R]):
    """Judges senders, keeps the peers' addresses, and learns when this node may vote (DESIGN: amnesia)."""

    def __init__(
        self,
        context: NodeContext[R],
        contacts: Contacts,
        *,
        receive: Callable[[PeerMessage], None],
        unreachable: Callable[[int, Loss], None],
        snapshot: Callable[[SnapshotOffer, AsyncIterator[bytes]], Awaitable[None]],
        confirmed: Callable[[], None],
        fail: Callable[[ConnectKvError], None],
        spawn: Callable[[Coroutine[None, None, None]], object],
    ) -> None:
        self._context = context
        self._contacts = contacts
        self._receive = receive
        self._unreachable = unreachable
        self._snapshot = snapshot
        self._confirmed = confirmed
        self._fail = fail
        self._spawn = spawn
        identity = context.identity
        self._book = AddressBook(identity.node_id)
        self._versions = PeerVersions(
            identity.node_id, context.config.highest_command, context.config.machines
        )
        self._followed: tuple[Membership | None, Membership | None] = (None, None)
        self._described = Membership()
        self._welcomed = {identity.node_id}
        self._refused = Refusals()
        self._refused_by = Refusals()
        self._cluster_runs = False
        self._confirming = False
        self._asking = False

    @property
    def common_highest_command(self) -> int:
        """What every member can apply, as far as known."""
        return self._versions.common(self._context.core.membership)

    @property
    def machines(self) -> Mapping[int, bytes]:
        """What each member that was heard said last of the machines it hosts."""
        return self._versions.machines

    def introduce(self, target: int) -> Hello:
        """How this node says hello."""
        return Hello(
            cluster_id=self._context.identity.cluster_id,
            source=self._context.identity.node_id,
            target=target,
            directory_id=self._context.identity.directory_id,
            protocol=self._context.config.protocol,
            oldest_protocol=self._context.config.oldest_protocol,
            highest_command=self._context.config.highest_command,
            machines=self._context.config.machines,
        )

    def follow_membership(self) -> None:
        """The membership in force, or the one applied, may have changed. Cheap if it has not."""
        in_force, applied = self._context.core.membership, self._context.history.membership
        if in_force is not self._followed[0] or applied is not self._followed[1]:
            self._followed = (in_force, applied)
            if self._book.update(in_force, applied):
                self._context.transport.set_peers(self._book.addresses)
        if not self._context.log.confirmed:
            self._confirm_if_welcome()

    def hear(self, description: Description) -> None:
        """What a running member said when this node started, or when a stranger appeared."""
        self._book.hear(description.membership)
        self._described = description.membership
        self._followed = (None, None)
        self.follow_membership()

    async def hello(self, hello: Hello) -> HelloReply:
        """Judge a stream's sender; its first directory id is on disk before it is welcomed."""
        verdict = await self._verdict(hello)
        if verdict is HelloVerdict.WELCOME:
            self._versions.note(hello.source, hello)
            self._contacts.greeted(hello.source)
            self._refused.welcome(hello.source)
        elif self._refused.news(hello.source, verdict):
            logger.warning(
                "a member was refused",
                extra={"member": f"{hello.source:x}", "verdict": verdict.name, **_shown(hello)},
            )
        return self._reply(verdict, hello)

    def hello_reply(self, node_id: int, reply: HelloReply) -> None:
        """What a peer answered to our own hello."""
        self._cluster_runs = self._cluster_runs or reply.term > 0
        self._contacts.replied(node_id, reply.verdict)
        if reply.verdict is HelloVerdict.WELCOME:
            self._versions.note(node_id, reply)
            self._welcomed.add(node_id)
            self._refused_by.welcome(node_id)
            self._confirm_if_welcome()
        elif reply.verdict is HelloVerdict.REMOVED:
            self._fail(MemberRemoved(f"member {node_id:x} says that this one was removed from the cluster"))
        elif reply.verdict is HelloVerdict.AMNESIA:
            self._fail(RefusedToStart(WIPED))
        elif self._refused_by.news(node_id, reply.verdict):
            logger.warning(
                "a member does not take our messages",
                extra={"member": f"{node_id:x}", "verdict": reply.verdict.name, "detail": reply.detail},
            )

    def receive(self, message: PeerMessage) -> None:
        """One message of a welcome sender."""
        self._receive(message)

    def unreachable(self, node_id: int, loss: Loss) -> None:
        """Messages to that member were lost."""
        self._unreachable(node_id, loss)

    async def receive_snapshot(self, offer: SnapshotOffer, chunks: AsyncIterator[bytes]) -> None:
        """Stage and install the snapshot that is offered."""
        verdict = await self._verdict(offer.hello)
        if verdict is not HelloVerdict.WELCOME:
            raise SnapshotRefused(f"its sender is not welcome: {verdict.name}")
        await self._snapshot(offer, chunks)

    async def describe(self, asker: Hello, peer_address: str) -> Description:
        """Answer a starting member, found by its id or, if it has none yet, by its address."""
        if asker.source:
            membership = self._context.core.membership
            member = membership.member(asker.source)
        else:
            membership = await self._membership_with(peer_address)
            member = _at(membership, peer_address)
        return Description(
            cluster_id=self._context.identity.cluster_id,
            node_id=self._context.identity.node_id,
            membership=membership,
            hello=self._reply(await self._verdict_on_starting(asker, member), asker),
            leader_id=self._context.core.leader_id,
            term=self._context.core.term,
        )

    async def answer(self, hello: Hello, method: str, request: bytes) -> bytes:
        """Carry out a call for another member, if that is welcome here."""
        verdict = await self._verdict(hello)
        if verdict is not HelloVerdict.WELCOME:
            raise PermissionError(f"the asking member is not welcome: {verdict.name}")
        return await self._context.answer(method, request)

    async def _membership_with(self, peer_address: str) -> Membership:
        """The membership applied here, with the member at that address if its adding is on its way.

        An id is given out for good, so it should not come from a change that may yet be rolled back.
        Only a voter gets it so when that takes long: without it, its adding may never be committed.
        """
        clock, config = self._context.clock, self._context.config
        until = clock.now() + config.election_seconds
        while clock.now() < until:
            applied = self._context.history.membership
            if _at(applied, peer_address) or not _at(self._context.core.membership, peer_address):
                return applied
            await clock.sleep(config.tick_seconds)
        added = _at(self._context.core.membership, peer_address)
        if added is not None and added.node_id in self._context.core.membership.voters:
            return self._context.core.membership
        return self._context.history.membership

    async def _verdict_on_starting(self, asker: Hello, member: Member | None) -> HelloVerdict:
        if asker.cluster_id not in (0, self._context.identity.cluster_id):
            return HelloVerdict.WRONG_CLUSTER
        if asker.source in self._context.history.membership.removed:
            return HelloVerdict.REMOVED
        if member is None or not is_certified(asker.certified, member):
            return HelloVerdict.UNKNOWN_MEMBER
        node_id = member.node_id
        noted = self._context.log.noted_directory(node_id)
        return HelloVerdict.WELCOME if noted in (None, asker.directory_id) else HelloVerdict.AMNESIA

    async def _verdict(self, hello: Hello) -> HelloVerdict:
        removed = self._context.history.membership.removed
        config = self._context.config
        verdict = verify_hello(
            hello,
            self._context.identity,
            removed,
            self._context.log.noted_directory(hello.source),
            protocol=config.protocol,
            oldest_protocol=config.oldest_protocol,
        )
        if verdict is not HelloVerdict.WELCOME:
            return verdict
        if hello.source not in self._book and self._book.addresses:
            # Added since this node last heard of the membership, or a stranger: the others know.
            self._ask_about_strangers()
            return HelloVerdict.UNKNOWN_MEMBER
        if not self._certified(hello):
            return HelloVerdict.UNKNOWN_MEMBER
        return await self._note(hello)

    def _certified(self, hello: Hello) -> bool:
        """Whether it came with that member's certificate. A node that joins knows only what it was told."""
        if hello.certified is None:
            return True
        known = (self._context.core.membership, self._context.history.membership, self._described)
        member = next(filter(None, (one.member(hello.source) for one in known)), None)
        return is_certified(hello.certified, member, self._book.addresses.get(hello.source, ""))

    async def _note(self, hello: Hello) -> HelloVerdict:
        if self._context.log.noted_directory(hello.source) is None:
            note = partial(_note_if_new, self._context.log, hello.source, hello.directory_id)
            try:
                await self._context.log_worker.run(note)
            except StorageError as error:
                self._fail(error)
                raise
        noted = self._context.log.noted_directory(hello.source)
        return HelloVerdict.WELCOME if noted == hello.directory_id else HelloVerdict.AMNESIA

    def _reply(self, verdict: HelloVerdict, hello: Hello) -> HelloReply:
        config = self._context.config
        versions = f"versions {config.oldest_protocol} to {config.protocol} are understood here"
        details = {
            HelloVerdict.AMNESIA: WIPED,
            HelloVerdict.REMOVED: "the sender was removed from this cluster",
            HelloVerdict.WRONG_CLUSTER: f"this is cluster {self._context.identity.cluster_id:x}",
            HelloVerdict.WRONG_MEMBER: f"this is member {self._context.identity.node_id:x}",
            HelloVerdict.INCOMPATIBLE: versions,
        }
        if verdict is HelloVerdict.UNKNOWN_MEMBER and hello.certified is not None:
            names = ", ".join(sorted(hello.certified)) or "nobody"
            details[verdict] = f"the sender's certificate is for {names}: expected its member's name or host"
        return HelloReply(
            verdict=verdict,
            detail=details.get(verdict, ""),
            protocol=config.protocol,
            highest_command=self._context.config.highest_command,
            directory_id=self._context.identity.directory_id,
            term=self._context.core.term,
            machines=config.machines,
        )

    def _confirm_if_welcome(self) -> None:
        """Vote from now on, if enough members have noted this directory, and so none noted another.

        In a cluster that never ran a majority is enough, this node included. Where one runs, this node
        may be a wiped member whose old directory was noted by a bare majority: then its own note proves
        nothing, and a majority of the others must agree. One that joins goes by what it was told of the
        members until its log tells: the others may be too few to elect a leader who sends that.
        """
        if self._context.log.confirmed or self._confirming:
            return
        membership, own = self._context.core.membership, self._context.identity.node_id
        joins = not membership.members
        if joins:
            membership = self._described
        running = joins or self._cluster_runs or self._context.core.term > 0
        if has_majority(membership, self._welcomed, besides=own if running else None):
            self._confirming = True
            self._spawn(self._confirm())

    async def _confirm(self) -> None:
        await self._context.log_worker.run(self._context.log.confirm)
        logger.info("a majority has noted this data directory: this node votes from now on")
        self._confirmed()

    def _ask_about_strangers(self) -> None:
        if not self._asking:
            self._asking = True
            self._spawn(self._learn_addresses())

    async def _learn_addresses(self) -> None:
        try:
            for node_id, address in list(self._book.addresses.items()):
                member = self._context.core.membership.member(self._context.identity.node_id)
                own_address = member.peer_address if member else ""
                try:
                    description = await self._context.transport.describe(
                        address, self.introduce(node_id), own_address
                    )
                except OSError as error:
                    logger.info(
                        "a member did not say who the members are",
                        extra={"address": address, "reason": str(error)},
                    )
                else:
                    if description.cluster_id == self._context.identity.cluster_id:
                        self.hear(description)
        finally:
            self._asking = False


def _shown(hello: Hello) -> dict[str, str]:
    """What a certificate says, for the log."""
    return {} if hello.certified is None else {"certificate": ", ".join(sorted(hello.certified))}


def _note_if_new(log: LogStore, node_id: int, directory_id: bytes) -> None:
    """On the log worker: two hellos of one member may be judged at the same time."""
    if log.noted_directory(node_id) is None:
        log.note_directory(node_id, directory_id)


def _at(membership: Membership, peer_address: str) -> Member | None:
    return next((member for member in membership.members if member.peer_address == peer_address), None)
