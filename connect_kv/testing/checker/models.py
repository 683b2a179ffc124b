"""Sequential specifications of what the cluster serves, for `linearizability.check`.

Inputs are tuples whose first item names the operation; each model lists them.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from connect_kv.testing.checker.linearizability import Model

__all__ = ["NO_VALUE", "counter", "lock", "register", "transactions"]

NO_VALUE = ("nothing",)
"""State of a register that was never written. Not None, which `step` keeps for "not allowed"."""


_ANSWERLESS = frozenset({"write", "delete", "release"})


def _short(input: Any, output: Any, known: bool) -> str:
    name, *rest = input
    text = " ".join([name, *map(str, rest)])
    if not known:
        return f"{text} → ?"
    return text if name in _ANSWERLESS else f"{text} → {'nothing' if output is None else output}"


def _short_of_its_key(input: Any, output: Any, known: bool) -> str:
    """Without the key, which is the same in all that is drawn together."""
    name, _, *rest = input
    return _short((name, *rest), output, known)


def _register_state(state: Any) -> str:
    return "no value" if state == NO_VALUE else repr(state)


def _register(state: Any, input: Any, output: Any, known: bool) -> Any:
    match input:
        case ("read", _):
            return state if not known or output == (None if state == NO_VALUE else state) else None
        case ("write", _, value):
            return value
        case ("cas", _, expected, value):
            current = None if state == NO_VALUE else state
            if not known:
                return value if current == expected else state
            return (value if output else state) if bool(output) == (current == expected) else None
        case ("delete", _):
            return NO_VALUE
    raise ValueError(f"not an operation of a register: {input!r}")


register = Model(
    init=lambda: NO_VALUE,
    step=_register,
    partition=lambda input: input[1],
    reads=lambda input: input[0] == "read",
    describe=_short_of_its_key,
    describe_state=_register_state,
)
"""``("read", key) -> value or None``, ``("write", key, value)``, ``("cas", key, expected, value) -> bool``,
``("delete", key)``. Values are hashable, not None and not NO_VALUE."""


def _map(state: Any, input: Any, output: Any, known: bool) -> Hashable | None:
    """State: frozenset of (key, value)."""
    _, compares, then, otherwise = input
    current = dict(state)
    holds = all(current.get(key) == value for key, value in compares)
    answers = []
    for operation in then if holds else otherwise:
        match operation:
            case ("read", key):
                answers.append(current.get(key))
            case ("write", key, value):
                current[key] = value
                answers.append(None)
            case ("delete", key):
                current.pop(key, None)
                answers.append(None)
            case _:
                raise ValueError(f"not an operation of a transaction: {operation!r}")
    if known and output != (holds, tuple(answers)):
        return None
    return frozenset(current.items())


def _described(input: Any, output: Any, known: bool) -> str:
    """``if a=7: write a 4, read b → (None, 3)``; what a transaction wrote is not told in its answer."""
    _, compares, then, otherwise = input
    text = ", ".join(" ".join(str(part) for part in one) for one in then) or "nothing"
    if compares:
        text = f"if {' and '.join(f'{key}={value}' for key, value in compares)}: {text}"
    if otherwise:
        text += f"; else {', '.join(' '.join(str(part) for part in one) for one in otherwise)}"
    if not known:
        return f"{text} → ?"
    held, answers = output
    seen = [str(one) for one in answers if one is not None]
    branch = [] if not compares else ["yes" if held else "no"]
    return f"{text} → {', '.join(branch + seen) or 'done'}"


transactions = Model(
    init=frozenset,
    step=_map,
    reads=lambda input: all(one[0] == "read" for one in (*input[2], *input[3])),
    describe=_described,
    describe_state=lambda state: ", ".join(f"{key} = {value}" for key, value in sorted(state)) or "no keys",
)
"""A map with compare-and-swap transactions: ``("txn", ((key, value or None), ...), then, otherwise) ->
(whether the compares held, answers)``; `then` and `otherwise` are tuples of ``("read", key)``,
``("write", key, value)``, ``("delete", key)``."""


def _counter(state: Any, input: Any, output: Any, known: bool) -> Hashable | None:
    match input:
        case ("increment", by):
            return state + by if not known or output == state + by else None
        case ("value",):
            return state if not known or output == state else None
    raise ValueError(f"not an operation of a counter: {input!r}")


counter = Model(
    init=lambda: 0,
    step=_counter,
    reads=lambda input: input[0] == "value",
    describe=_short,
)
"""``("increment", by) -> new total``, ``("value",) -> total``."""


def _lock(state: Any, input: Any, output: Any, known: bool) -> Any:
    """State: (owner or "", highest fencing number)."""
    owner, fence = state
    match input:
        case ("acquire", _, who):
            if known and output is None:
                return state
            if owner:
                return state if not known else None
            if not known:
                return (who, fence)
            return (who, output) if output > fence else None
        case ("release", _, who):
            return ("", fence) if owner == who else state
    raise ValueError(f"not an operation of a lock: {input!r}")


lock = Model(
    init=lambda: ("", 0),
    step=_lock,
    partition=lambda input: input[1],
    describe=_short_of_its_key,
    describe_state=lambda state: f"held by {state[0]}" if state[0] else "free",
)
"""``("acquire", name, who) -> fencing number, or None if it was not got``, ``("release", name, who)``.
Fencing numbers only grow."""
