"""How machines are on each member, and what an operator decides about them."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping

from connect_kv.errors import BadCall, ConnectKvError
from connect_kv.etcd_errors import Code, Refusal
from connect_kv.node.node import RaftNode
from connect_kv.rpc.machine_pb2 import MachineDecideRequest, MachineStatusRequest, MachineStatusResponse
from connect_kv.rpc.versions_pb2 import MachineChange, MachineDigests
from connect_kv.services.executor import BY_SERVER, CommandExecutor, field_number
from connect_kv.services.peer_calls import PeerCalls
from connect_kv.statemachine.host import MachineHost

logger = logging.getLogger(__name__)

_CHANGE = field_number("machine_change")
_ANSWER_SECONDS = 2.0
_COMPARE_SECONDS = 10.0
_AGAIN_SECONDS = 0.1
_REPLACE = "remove this member, and add it again"

Machine = MachineStatusResponse.Machine
Member = MachineStatusResponse.Member


class MachineControl:
    """Asks all members; decides for all members, by an entry of the log."""

    def __init__(
        self,
        executor: CommandExecutor,
        host: MachineHost,
        node: RaftNode[bytes],
        peers: PeerCalls,
        waits: Mapping[str, str],
    ) -> None:
        """`waits`: whom versions wait for, as far as this member knows."""
        self._executor = executor
        self._host = host
        self._node = node
        self._peers = peers
        self._waits = waits
        peers.serve("MachineStatus", self._for_peer)
        peers.serve("MachineDigests", self._digests_for_peer)
        peers.serve("MachineDiffers", self._differs_for_peer)

    async def status(self, machine: str = "") -> list[Member]:
        """How it is, or all are, on each member; those that do not answer say why."""
        node_ids = self._node.membership.node_ids
        return list(await asyncio.gather(*(self._ask(node_id, machine) for node_id in node_ids)))

    def here(self, machine: str = "") -> list[Machine]:
        """How the machines stand on this member."""
        names = {*self._host.machines.machines, *self._host.machines.suspended, *self._host.retired.names}
        return [self._machine(name) for name in sorted(names) if machine in ("", name)]

    async def compare(self) -> dict[str, list[str]]:
        """Members whose states are not those of the others, by machine; there those are suspended.

        Digests of states can only be compared at one entry of the log, so this proposes one.
        """
        if not self._host.machines.storable:
            return {}
        change = MachineChange(measure=MachineChange.Measure())
        await self._executor.execute(_CHANGE, change.SerializeToString(), BY_SERVER)
        index, own = self._host.machines.measured
        found = {self._executor.member_id: own}
        others = [one for one in self._node.membership.node_ids if one != self._executor.member_id]
        answers = await asyncio.gather(*(self._ask_digests(one, index) for one in others))
        found |= {one: digests for one, digests in zip(others, answers, strict=True) if digests is not None}
        differing: dict[str, list[str]] = {}
        for name in own:
            digests = {node_id: one[name] for node_id, one in found.items() if name in one}
            for node_id in sorted(wrong_among(digests, self._executor.member_id)):
                differing.setdefault(name, []).append(self._name(node_id))
                await self._tell(node_id, name, index)
        return differing

    async def _ask_digests(self, node_id: int, index: int) -> dict[str, bytes] | None:
        request = MachineDigests(index=index).SerializeToString()
        try:
            async with asyncio.timeout(_COMPARE_SECONDS):
                while True:
                    answer = MachineDigests.FromString(
                        await self._peers.ask(node_id, "MachineDigests", request)
                    )
                    if answer.index >= index:
                        break
                    await asyncio.sleep(_AGAIN_SECONDS)
        except (ConnectKvError, TimeoutError):
            return None
        if answer.index > index:
            return None
        return {one.name: one.digest for one in answer.machines}

    async def _digests_for_peer(self, request: bytes) -> bytes:
        index, digests = self._host.machines.measured
        machines = [MachineDigests.Machine(name=name, digest=one) for name, one in digests.items()]
        return MachineDigests(index=index, machines=machines).SerializeToString()

    async def _tell(self, node_id: int, machine: str, index: int) -> None:
        request = MachineDigests(index=index, machines=[MachineDigests.Machine(name=machine)])
        if node_id == self._executor.member_id:
            await self._differs_for_peer(request.SerializeToString())
            return
        try:
            await self._peers.ask(node_id, "MachineDiffers", request.SerializeToString())
        except (ConnectKvError, TimeoutError) as error:
            logger.warning("a member was not told that its machine differs: %s", error)

    async def _differs_for_peer(self, request: bytes) -> bytes:
        differs = MachineDigests.FromString(request)
        for one in differs.machines:
            reason = f"at entry {differs.index} its state was not that of the other members: {_REPLACE}"
            if one.name in self._host.machines.machines:
                self._host.machines.suspend(one.name, reason)
        return b""

    async def decide(self, request: MachineDecideRequest, by: bytes) -> None:
        """Make it so on all members, for whom `services.access` judged so. Raises Refused saying why not,
        BadCall.
        """
        name = request.machine
        change = MachineChange(machine=name)
        match request.decision:
            case MachineDecideRequest.SKIP:
                change.skip.CopyFrom(await self._poisonous(name, request.index))
            case MachineDecideRequest.RETIRE:
                if not self.here(name):
                    raise BadCall(f"connect-kv: unknown machine {name[:200]!r}")
                change.retire.SetInParent()
            case MachineDecideRequest.HOST:
                if name not in self._host.retired:
                    raise _refused(f"machine {name[:200]!r} was not retired")
                change.host.SetInParent()
            case _:
                raise BadCall("connect-kv: decide to skip, to retire or to host")
        await self._executor.execute(_CHANGE, change.SerializeToString(), by)

    async def _poisonous(self, name: str, index: int) -> MachineChange.Skip:
        """The command that is to be skipped. Only one that stopped a majority, and that nobody has run.

        Who has run it has perhaps answered to it, and to what came after: that must stay as it was.
        """
        stopped: dict[str, int] = {}
        others: list[str] = []
        members = await self.status(name)
        for member in members:
            found = next((one for one in member.machines if one.name == name), None)
            if member.problem:
                continue
            if found is not None and found.suspended and found.index == index:
                stopped[member.name] = found.position
            elif found is None or not found.suspended or found.index > index or not found.index:
                others.append(member.name)
        if others:
            raise _refused(f"{', '.join(others)} did not stop at entry {index} and may have run it")
        if 2 * len(stopped) <= len(members):
            raise _refused(
                f"machine {name[:200]!r} is not known to have stopped at entry {index} on a majority"
            )
        if len(set(stopped.values())) > 1:
            where = ", ".join(f"{member} at command {at}" for member, at in sorted(stopped.items()))
            raise _refused(f"members stopped at different commands of entry {index}: {where}")
        return MachineChange.Skip(index=index, position=next(iter(stopped.values())))

    async def _ask(self, node_id: int, machine: str) -> Member:
        name = self._name(node_id)
        if node_id == self._executor.member_id:
            return Member(name=name, machines=self.here(machine))
        request = MachineStatusRequest(machine=machine).SerializeToString()
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                answer = await self._peers.ask(node_id, "MachineStatus", request)
        except (ConnectKvError, TimeoutError) as error:
            return Member(name=name, problem=str(error) or "no answer in time")
        (member,) = MachineStatusResponse.FromString(answer).members
        member.name = name
        return member

    async def _for_peer(self, request: bytes) -> bytes:
        asked = MachineStatusRequest.FromString(request)
        answer = MachineStatusResponse(members=[Member(machines=self.here(asked.machine))])
        return answer.SerializeToString()

    def _machine(self, name: str) -> Machine:
        found = self._host.machines.machines.get(name)
        suspension = self._host.machines.suspended.get(name)
        machine = Machine(name=name, retired=name in self._host.retired, waits=self._waits.get(name, ""))
        if found is not None:
            machine.version, machine.newest = found.standing.version, found.newest
            machine.needed = self._host.needed_version(name)
        if suspension is not None:
            machine.suspended, machine.index = suspension.reason, suspension.index
            machine.position = suspension.position
        return machine

    def _name(self, node_id: int) -> str:
        published = self._host.cluster.members.get(node_id)
        return f"{node_id:x}" if published is None else published.name


def wrong_among(digests: Mapping[int, bytes], leader: int) -> frozenset[int]:
    """Who differs from what most have; if there is no such majority, who differs from the leader."""
    if leader not in digests:
        return frozenset()
    found, count = Counter(digests.values()).most_common(1)[0]
    right = found if count * 2 > len(digests) else digests[leader]
    return frozenset(node_id for node_id, value in digests.items() if value != right)


def _refused(why: str) -> Exception:
    return Refusal(Code.FAILED_PRECONDITION, f"connect-kv: {why}").error()
