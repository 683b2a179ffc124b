"""What a call leaves in an object, looked at after each, at a price that goes with what it changed.

Of a command: every attribute that it bound to something else, and what it added at the end of a list or dict
that an attribute holds. What it put deeper, or in the place of something else, is looked at when the state is
stored. All members judge alike: by the state before and after the command, and nothing else.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from itertools import islice
from typing import Any

from connect_kv.framework.attributes import Attributes

State = MutableMapping[str, Any]


_SCALARS = frozenset((int, str, bytes, bool, float, type(None)))

_ABSENT = object()


class Guard:
    """Of one object whose attributes are its state. Used by one thread."""

    def __init__(self, owner: type, attributes: Attributes) -> None:
        self._owner = owner.__name__
        self._attributes = attributes
        self._seen: dict[str, Any] = {}
        """The attributes as the last call left them."""
        self._sizes: dict[str, int] = {}
        """Of the lists and dicts among them."""

    def begin(self, state: State) -> None:
        """Before some calls. What is no attribute of the class was put there from outside: it goes.

        It is not on other members, nor in what is stored.
        """
        for name in state.keys() - self._attributes.names:
            del state[name]
        self._seen = dict(state)
        self._sizes = {name: len(value) for name, value in state.items() if type(value) in (list, dict)}

    def after_command(self, state: State) -> str | None:
        """Why the command must fail, with the path of the cause; None if all it left can be stored.

        What cannot be is taken away: its attribute is what it was before, or has lost what was added.
        """
        seen, reason = self._seen, None
        if state.keys() != seen.keys():
            reason = self._other_names(state)
        for name, value in state.items():
            if value is not seen[name]:
                if type(value) in _SCALARS and name not in self._sizes:
                    seen[name] = value
                else:
                    reason = self._bound(state, name) or reason
        for name, size in self._sizes.items():
            if len(seen[name]) != size:
                reason = self._resized(name, size) or reason
        return reason

    def after_query(self, state: State) -> str | None:
        """Which attribute a query changed; None if it did not. What it bound is bound back."""
        seen = self._seen
        self._drop_caches(state)
        changed = [
            name for name in {**seen, **state} if state.get(name, _ABSENT) is not seen.get(name, _ABSENT)
        ]
        changed += [name for name, size in self._sizes.items() if len(seen[name]) != size]
        if not changed:
            return None
        state.clear()
        state.update(seen)
        for name, size in self._sizes.items():
            _shorten(seen[name], size)
        return f"it changed {self._owner}.{changed[0]}: a query runs on one member alone, and changes nothing"

    def _drop_caches(self, state: State) -> None:
        """What a cached property keeps was computed from a state that may be over, on this member alone."""
        for name in self._attributes.caches:
            state.pop(name, None)

    def _other_names(self, state: State) -> str | None:
        """Attributes came or went. Afterwards there are those of before, and new ones that may be there."""
        self._drop_caches(state)
        reason = None
        for name in self._seen:
            if name not in state:
                state[name] = self._seen[name]
                reason = f"{self._owner}.{name} was deleted: set it to None instead"
        for name in [name for name in state if name not in self._seen]:
            if name not in self._attributes.names:
                refusal: str | None = (
                    f"{self._owner}.{name} is first set here: set or annotate it in __init__"
                )
            else:
                refusal = self._attributes.refusal(name, state[name])
            if refusal is not None:
                del state[name]
                reason = refusal
            else:
                self._seen[name] = _ABSENT  # it is looked at with those that were bound to something else
        return reason

    def _bound(self, state: State, name: str) -> str | None:
        """An attribute is another object than before."""
        value = state[name]
        reason = self._attributes.refusal(name, value)
        if reason is not None:
            state[name] = self._seen[name]
            return reason
        self._seen[name] = value
        self._sizes.pop(name, None)
        if type(value) in (list, dict):
            self._sizes[name] = len(value)
        return None

    def _resized(self, name: str, size: int) -> str | None:
        """A list or dict is longer or shorter than before."""
        value, reason = self._seen[name], None
        if len(value) > size and self._attributes.refusal(name, _added(value, size)) is not None:
            reason = self._attributes.refusal(name, value)  # with the path to the cause from the attribute on
            _shorten(value, size)
        self._sizes[name] = len(value)
        return reason


def _added(value: Any, size: int) -> object:
    """What has come at the end of a list or dict of that size."""
    if isinstance(value, list):
        return value[size:]
    return dict(islice(reversed(value.items()), len(value) - size))


def _shorten(value: Any, size: int) -> None:
    """Take what has come at the end of a list or dict of that size away again."""
    if isinstance(value, list):
        del value[size:]
        return
    while len(value) > size:
        value.popitem()
