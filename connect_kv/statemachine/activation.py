"""When a machine is founded, or gets another version: what all members say of their code decides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from connect_kv.rpc.versions_pb2 import HostedMachines, MachineChange
from connect_kv.statemachine.code_records import activation_record, codes_from
from connect_kv.statemachine.fingerprint import PYTHON, CodeFingerprint, changed
from connect_kv.statemachine.hosted import HostedMachine

LARGEST_FIRST_STATE = 256 << 10
"""Bytes. A larger first state is not put into the log: each member begins with its own."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a member says of one machine it hosts."""

    newest: int
    codes: tuple[CodeFingerprint, ...]

    def code(self, version: int) -> CodeFingerprint | None:
        """The code that the version would execute."""
        return next((code for code in self.codes if code.version == version), None)


Claims = Mapping[str, Claim]


def claims_from(record: bytes) -> Claims:
    """What a member says in its hello; nothing where that cannot be read."""
    try:
        hosted = HostedMachines.FromString(record)
    except DecodeError:
        return {}
    return {one.name: Claim(one.newest, codes_from(one.codes)) for one in hosted.machines}


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to be proposed; if nothing is, whom it waits for, if for anybody."""

    change: MachineChange | None = None
    waits: str = ""


def decide(
    name: str,
    machine: HostedMachine,
    first: Iterable[bytes],
    members: Mapping[str, Claims | None],
    *,
    patient: bool,
) -> Decision:
    """What the leader is to propose for a machine it hosts.

    `members` by their names; None for one that has not been heard. Such a member holds up every
    version but the first one: if `patient` is over, a majority may found a machine without it.
    """
    version = machine.standing.version
    if not machine.codes:
        return Decision()
    heard = {member: claims.get(name) for member, claims in members.items() if claims is not None}
    if version == 0:
        enough = patient and 2 * len(heard) > len(members)
        waits = lacking(name, machine.newest, {**members} if not enough else _known(members))
        newest = {claim.newest for claim in heard.values() if claim is not None}
        if not waits and newest - {machine.newest}:
            waits = "members have other versions: " + _versions(name, _known(members))
        codes, differs = _agreed(machine, machine.newest, heard, beginning=True)
        if waits or differs:
            return Decision(waits=waits or differs)
        state = list(first)
        small = sum(map(len, state)) <= LARGEST_FIRST_STATE
        return Decision(activation_record(name, 0, machine.newest, codes, state if small else None))
    target = min([machine.newest, *(claim.newest for claim in heard.values() if claim is not None)])
    if target > version:
        codes, differs = _agreed(machine, target, heard, beginning=True)
        waits = lacking(name, target, members) or differs
        return Decision(waits=waits) if waits else Decision(activation_record(name, version, target, codes))
    return _record_codes(name, machine, heard, members)


def lacking(name: str, version: int, members: Mapping[str, Claims | None]) -> str:
    """Which members cannot run that version, in words; empty if all can."""
    reasons: dict[str, list[str]] = {}
    for member, claims in sorted(members.items()):
        if claims is None:
            reasons.setdefault("not heard yet", []).append(member)
        elif (claim := claims.get(name)) is None:
            reasons.setdefault("without it", []).append(member)
        elif claim.newest < version:
            reasons.setdefault(str(claim.newest), []).append(member)
    parts = []
    for reason, names in sorted(reasons.items()):
        one = len(names) == 1
        verb = ("has" if one else "have") if reason.isdigit() else ("is" if one else "are")
        parts.append(f"{_and(names)} {verb} {reason}")
    return "; ".join(parts)


def _record_codes(
    name: str, machine: HostedMachine, heard: Mapping[str, Claim | None], members: Mapping[str, Claims | None]
) -> Decision:
    """The digests of the active version, as soon as all have the same."""
    version = machine.standing.version
    own = machine.codes[version - 1]
    agreed = [code for code in machine.standing.codes if code.python == PYTHON]
    if agreed and not (machine.accept_changed and changed(agreed[0], own)):
        return Decision()
    codes, differs = _agreed(machine, version, heard, beginning=False)
    if differs or lacking(name, version, members):
        return Decision()
    pythons = {code.python for code in codes}
    others = [code for code in machine.standing.codes if code.python not in pythons]
    return Decision(activation_record(name, version, version, [*others, *codes]))


def _agreed(
    machine: HostedMachine, version: int, heard: Mapping[str, Claim | None], *, beginning: bool
) -> tuple[list[CodeFingerprint], str]:
    """The codes of that version, one for each Python; or who has another, and in what."""
    found = {PYTHON: machine.codes[version - 1]}
    for member, claim in sorted(heard.items()):
        code = claim.code(version) if claim is not None else None
        if code is None:
            continue
        known = found.setdefault(code.python, code)
        names = changed(known, code)
        if beginning and known.beginning != code.beginning:
            names.append("__init__ or upgrade")
        if names:
            return [], f"the code of version {version} is another on {member} ({', '.join(names)})"
    return [found[python] for python in sorted(found)], ""


def _known(members: Mapping[str, Claims | None]) -> dict[str, Claims | None]:
    return {member: claims for member, claims in members.items() if claims is not None}


def _versions(name: str, members: Mapping[str, Claims | None]) -> str:
    newest = {member: claims[name].newest for member, claims in members.items() if claims and name in claims}
    return ", ".join(f"{member} has {version}" for member, version in sorted(newest.items()))


def _and(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
