"""What a user gives as a machine, in the form the host drives."""

from __future__ import annotations

from connect_kv.errors import ConfigError
from connect_kv.framework.replicated import Replicated
from connect_kv.statemachine.callbacks import CallbackMachine
from connect_kv.statemachine.hosted import HostedMachine, ReplicatedMachine
from connect_kv.statemachine.lowlevel import LowLevelMachine


def hosted(machine: object, where: str) -> HostedMachine:
    """A Replicated object, a low-level StateMachine, or one of the host's own forms.

    Raises ConfigError, headed by `where`, for anything else.
    """
    try:
        if isinstance(machine, Replicated):
            return ReplicatedMachine(machine)
        if isinstance(machine, ReplicatedMachine | CallbackMachine | LowLevelMachine):
            return machine
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    if all(callable(getattr(machine, name, None)) for name in ("apply", "query", "snapshot", "restore")):
        return LowLevelMachine(machine)  # type: ignore[arg-type]  # checked by its methods just above
    raise ConfigError(
        f"{where}: {type(machine).__name__} is neither a Replicated class nor has it "
        "apply, query, snapshot and restore"
    )
