"""Scenarios: a cluster told step by step what happens, and the transcript of what it does.

A file holds blocks: command lines, ``----``, transcript. Lines that begin with ``#`` are comments.
Commands, with node ids as arguments:

    add-nodes COUNT               members 1..COUNT of a new cluster
    add-node ID                   a node that knows nothing yet
    campaign ID                   it campaigns now
    tick ID [COUNT]               time passes for it
    propose ID TEXT...            one command each
    change ID OPERATION ID ...    of add-voter, add-learner, promote, demote, remove
    transfer ID TO                hand leadership over
    read ID CONTEXT               ask for a read index
    deliver [FROM->TO] [COUNT]    the oldest packets, all if there is no count
    drop [FROM->TO] [COUNT]       lose them instead
    cut ID...                     lose whatever goes to or from these, until `heal`
    heal
    slow-disk ID | persist ID     writes wait for `persist`
    compact ID INDEX              drop its log up to there
    crash ID | restart ID
    stabilize                     deliver until nothing is under way
    state                         one line for each node
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from connect_kv.raft.membership import MembershipChange
from connect_kv.raft.messages import (
    AppendRequest,
    AppendResponse,
    HeartbeatRequest,
    HeartbeatResponse,
    InstallSnapshot,
    Message,
    ReadIndexRequest,
    ReadIndexResponse,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from connect_kv.raft.types import Entry, EntryId, EntryKind, Membership
from tests.raft.harness import Cluster, Node, Packet, header, member


def rewritten(path: Path) -> str:
    """The file's text with the transcripts that the cores give now."""
    scenario = Scenario()
    lines: list[str] = []
    commands: list[str] = []
    in_transcript = False
    for line in path.read_text().splitlines():
        if in_transcript:
            in_transcript = bool(line)
            if not in_transcript:
                lines.append("")
            continue
        lines.append(line)
        if line == "----":
            lines.extend(output for command in commands for output in scenario.run(command))
            commands, in_transcript = [], True
        elif line and not line.startswith("#"):
            commands.append(line)
    assert not commands, f"{path.name}: commands without a transcript"
    return "\n".join(lines).rstrip("\n") + "\n"


class Scenario:
    """One cluster, and what it did since the last command."""

    def __init__(self) -> None:
        self._cluster = Cluster(0)
        self._shown: dict[int, tuple[object, ...]] = {}
        self._seen: dict[int, Packet] = {}
        """Packets already shown, by identity; kept, so that no identity is used again."""

    def run(self, line: str) -> list[str]:
        """Run a command; returns what happened."""
        name, *arguments = line.split()
        output = list(getattr(self, f"_run_{name.replace('-', '_')}")(*arguments) or ())
        return output + self._effects()

    def _run_add_nodes(self, count: str) -> None:
        self._cluster = Cluster(int(count))

    def _run_add_node(self, node_id: str) -> None:
        self._cluster.add(int(node_id))

    def _run_campaign(self, node_id: str) -> None:
        self._node(node_id).core.campaign()

    def _run_tick(self, node_id: str, count: str = "1") -> None:
        self._node(node_id).tick(int(count))

    def _run_propose(self, node_id: str, *texts: str) -> None:
        self._node(node_id).core.propose([text.encode() for text in texts])

    def _run_change(self, node_id: str, *words: str) -> None:
        change = MembershipChange()
        for operation, target in zip(words[::2], map(int, words[1::2]), strict=True):
            match operation:
                case "add-voter":
                    change = change.add_voter(member(target))
                case "add-learner":
                    change = change.add_learner(member(target))
                case "promote":
                    change = change.promote(target)
                case "demote":
                    change = change.demote(target)
                case "remove":
                    change = change.remove(target)
                case _:
                    raise ValueError(operation)
        self._node(node_id).core.propose_membership(change)

    def _run_transfer(self, node_id: str, to: str) -> None:
        self._node(node_id).core.transfer_leadership(int(to))

    def _run_read(self, node_id: str, context: str) -> None:
        self._node(node_id).core.read_index(int(context))

    def _run_deliver(self, *arguments: str) -> None:
        for packet in self._take(arguments):
            self._cluster.deliver(packet)

    def _run_drop(self, *arguments: str) -> None:
        self._take(arguments)

    def _run_cut(self, *node_ids: str) -> None:
        self._cluster.isolate(*map(int, node_ids))

    def _run_heal(self) -> None:
        self._cluster.heal()

    def _run_slow_disk(self, node_id: str) -> None:
        self._node(node_id).slow_disk = True

    def _run_persist(self, node_id: str) -> None:
        self._node(node_id).persist()

    def _run_compact(self, node_id: str, index: str) -> None:
        self._node(node_id).make_durable()
        self._node(node_id).compact(int(index))

    def _run_crash(self, node_id: str) -> None:
        self._node(node_id).crash()

    def _run_restart(self, node_id: str) -> None:
        self._node(node_id).start()

    def _run_stabilize(self) -> Iterator[str]:
        while self._cluster.packets:
            packets, self._cluster.packets = self._cluster.packets, []
            for packet in packets:
                self._cluster.deliver(packet)
            yield from self._effects()

    def _run_state(self) -> Iterator[str]:
        for node_id, node in self._cluster.nodes.items():
            status = node.core.status()
            log = " ".join(map(show_entry, node.log))
            yield (
                f"{node_id} {status.role.value if node.alive else 'down'} term={status.term} "
                f"commit={status.commit_index} applied={status.applied_index} "
                f"{show_membership(status.membership)} log=[{log}]"
            )

    def _node(self, node_id: str) -> Node:
        return self._cluster[int(node_id)]

    def _take(self, arguments: tuple[str, ...]) -> list[Packet]:
        """Remove packets from the network: of one direction if named, at most a count if given."""
        way = next((argument for argument in arguments if "->" in argument), None)
        count = next((int(argument) for argument in arguments if argument.isdigit()), None)
        wanted = [packet for packet in self._cluster.packets if way in (None, direction(packet))][:count]
        self._cluster.packets = [packet for packet in self._cluster.packets if packet not in wanted]
        return wanted

    def _effects(self) -> list[str]:
        """What changed, what was sent, what was answered."""
        self._cluster.collect()
        lines = []
        for node_id, node in self._cluster.nodes.items():
            core = node.core
            shown = (node.alive, core.role, core.term, core.leader_id, core.commit_index)
            before = self._shown.get(node_id)
            if before is not None and shown != before:
                lines.append(f"{node_id} {show_change(node, commit_moved=shown[-1] != before[-1])}")
            self._shown[node_id] = shown
            for read in node.reads:
                lines.append(f"{node_id} read {read.context} index={read.index or 'abandoned'}")
            node.reads.clear()
        new = [packet for packet in self._cluster.packets if id(packet) not in self._seen]
        self._seen.update({id(packet): packet for packet in new})
        return lines + [f"{direction(packet)} {show_packet(packet)}" for packet in new]


def direction(packet: Packet) -> str:
    return f"{header(packet).source}->{header(packet).target}"


def show_change(node: Node, *, commit_moved: bool) -> str:
    core = node.core
    if not node.alive:
        return "down"
    leader = "none" if core.leader_id is None else str(core.leader_id)
    commit = f" commit={core.commit_index}" if commit_moved else ""
    return f"{core.role.value} term={core.term} leader={leader}{commit}"


def show_id(id: EntryId) -> str:
    return f"{id.term}/{id.index}"


def show_membership(membership: Membership) -> str:
    parts = [f"voters={','.join(map(str, sorted(membership.voters))) or 'none'}"]
    for name in ("voters_outgoing", "learners", "learners_next"):
        if ids := getattr(membership, name):
            parts.append(f"{name}={','.join(map(str, sorted(ids)))}")
    return " ".join(parts)


def show_entry(entry: Entry) -> str:
    match entry.kind:
        case EntryKind.NOOP:
            return f"{show_id(entry.id)}:noop"
        case EntryKind.COMMAND:
            return f"{show_id(entry.id)}:{entry.data.decode()}"
        case EntryKind.MEMBERSHIP:
            return f"{show_id(entry.id)}:({show_membership(Membership.decode(entry.data))})"


def show_packet(packet: Packet) -> str:
    message: Message = header(packet)
    match message:
        case VoteRequest():
            name = "PreVoteRequest" if message.pre_vote else "VoteRequest"
            transfer = " transfer" if message.transfer else ""
            details = f"last={show_id(message.last)}{transfer}"
        case VoteResponse():
            name = "PreVoteResponse" if message.pre_vote else "VoteResponse"
            details = "granted" if message.granted else "refused"
        case AppendRequest():
            entries = " ".join(map(show_entry, message.entries))
            name = "AppendRequest"
            details = f"prev={show_id(message.prev)} commit={message.commit_index} [{entries}]"
        case AppendResponse(accepted=True):
            name, details = "AppendResponse", f"match={message.match_index}"
        case AppendResponse():
            name, details = "AppendResponse", f"rejected={message.prev_index} hint={show_id(message.hint)}"
        case HeartbeatRequest():
            name, details = "HeartbeatRequest", f"commit={message.commit_index} round={message.round}"
        case HeartbeatResponse():
            name, details = "HeartbeatResponse", f"round={message.round}"
        case InstallSnapshot():
            name = "Snapshot"
            details = f"last={show_id(message.meta.last)} {show_membership(message.meta.membership)}"
        case ReadIndexResponse():
            name, details = "ReadIndexResponse", f"index={message.index}"
        case TimeoutNow() | ReadIndexRequest():
            name, details = type(message).__name__, ""
    return f"{name} term={message.term} {details}".rstrip()
