"""Versions of machines as records: in entries, in hellos, beside stored states (versions.proto)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from connect_kv.rpc.versions_pb2 import HostedMachines, MachineChange, MachineCode, MachineStanding
from connect_kv.statemachine.fingerprint import CodeFingerprint
from connect_kv.statemachine.hosted import Activation, HostedMachine, Standing

OLD = Standing(1)
"""What every state has that was stored without saying."""


def code_record(code: CodeFingerprint) -> MachineCode:
    """What a member says of the code of a machine, encoded."""
    commands = [
        MachineCode.Method(name=name, digest=digest) for name, digest in sorted(code.commands.items())
    ]
    return MachineCode(version=code.version, python=code.python, commands=commands, beginning=code.beginning)


def codes_from(records: Iterable[MachineCode]) -> tuple[CodeFingerprint, ...]:
    """The fingerprints that records hold."""
    return tuple(
        CodeFingerprint(
            one.version, one.python, {method.name: method.digest for method in one.commands}, one.beginning
        )
        for one in records
    )


def standing_record(standing: Standing, *, first: bool = False) -> bytes:
    """Beside a stored state; nothing for what every older one has."""
    if standing == OLD and not first:
        return b""
    codes = [code_record(code) for code in standing.codes]
    return MachineStanding(version=standing.version, codes=codes, first=first, said=True).SerializeToString()


def standing_from(record: bytes) -> tuple[Standing, bool]:
    """A standing from its record, and whether nothing is stored of the state itself. Raises DecodeError."""
    if not record:
        return OLD, False
    found = MachineStanding.FromString(record)
    return Standing(found.version, codes_from(found.codes)), found.first


def hosted_record(machines: Mapping[str, HostedMachine]) -> bytes:
    """What a member says of its machines in its hello."""
    return HostedMachines(
        machines=[
            HostedMachines.Machine(name=name, newest=one.newest, codes=map(code_record, one.codes))
            for name, one in sorted(machines.items())
        ]
    ).SerializeToString()


def activation_record(
    machine: str,
    origin: int,
    version: int,
    codes: Iterable[CodeFingerprint],
    state: Iterable[bytes] | None = None,
) -> MachineChange:
    """The entry that gives a machine another version."""
    activate = MachineChange.Activate(origin=origin, version=version, codes=map(code_record, codes))
    if state is not None:
        activate.state = msgspec.msgpack.encode(list(state))
    return MachineChange(machine=machine, activate=activate)


def activation_from(record: MachineChange.Activate, log_time: int, index: int, position: int) -> Activation:
    """What the machine is told of it."""
    state = tuple(msgspec.msgpack.decode(record.state, type=list[bytes])) if record.state else None
    return Activation(
        record.origin, record.version, codes_from(record.codes), state, log_time, index, position
    )
