"""What an object holds, so that two of them can be compared, and their difference be said in words.

Attributes of any kind can be compared, those that cannot be stored too, and sharing is seen: two names of one
list are not the same as two equal lists.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from connect_kv.framework.exact import Writer
from connect_kv.framework.known import KnownClasses, Unstorable
from connect_kv.framework.replicated import Replicated

CHARACTERS = 200


class _AnyClass(KnownClasses):
    """Takes objects of every class."""

    def name_of(self, kind: type) -> str:
        """See KnownClasses."""
        return kind.__qualname__  # a class may have its newer version in another module


_ANY = _AnyClass(())


class Portrait(NamedTuple):
    """The attributes of an object at one moment."""

    held: Mapping[str, bytes]
    """Of each, bytes that are the same in every process for the same value."""
    whole: bytes
    """All of them together, which shows what they share."""
    words: Mapping[str, str]

    @property
    def state(self) -> str:
        """``the state is total = 3``."""
        return "the state is " + (
            ", ".join(f"{name} = {words}" for name, words in self.words.items()) or "empty"
        )

    def difference(self, other: Portrait, mine: str, theirs: str) -> str | None:
        """``total is 3 here and 4 there``; None if there is none."""
        for name in [*self.held, *other.held.keys() - self.held.keys()]:
            if self.held.get(name) != other.held.get(name):
                here, there = (one.words.get(name, "missing") for one in (self, other))
                if here == there:
                    return f"{name} = {here} has other types {theirs}, or shares its parts otherwise"
                return f"{name} is {here} {mine} and {there} {theirs}"
        if self.whole != other.whole:
            sharing = ", ".join(self.held)
            return f"what {sharing} share is one object {mine} and several {theirs}, or the other way round"
        return None


def portrait_of(machine: Replicated) -> Portrait:
    """What a machine holds now; if it has a snapshot of its own, what that says."""
    state = vars(machine)
    words = {name: in_words(value) for name, value in state.items()}
    if type(machine).snapshot is not Replicated.snapshot:
        whole = b"".join(machine.snapshot())
        return Portrait({"the snapshot": whole}, whole, words)
    return Portrait({name: _bytes(value) for name, value in state.items()}, _bytes(state), words)


def _bytes(value: Any) -> bytes:
    try:
        return Writer(_ANY, canonical=True).encode(value)
    except Unstorable as error:
        return f"{type(value).__qualname__} {error.path} {error}".encode()


def in_words(value: object) -> str:
    """The value, shortened; sets in an order that does not depend on hashes."""
    if isinstance(value, set | frozenset):
        text = "{" + ", ".join(sorted(map(repr, value))) + "}" if value else f"{type(value).__name__}()"
    else:
        text = repr(value)
    return text if len(text) <= CHARACTERS else f"{text[: CHARACTERS - 3]}..."
