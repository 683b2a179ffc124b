"""The default snapshot: all attributes of an object, exactly as they are.

An attribute that is what its annotation says, and shares nothing, is stored as msgpack by that
annotation: short, fast, and readable after the annotation was widened. Everything else is stored as it is
(`exact`), all such attributes together: an object that two of them hold is one object afterwards.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Mapping, MutableMapping

import msgspec

from connect_kv.errors import ConfigError
from connect_kv.framework import data, exact
from connect_kv.framework.declared import (
    annotations_of,
    cached_properties,
    classes_of,
    refuse_hidden_state,
    refuse_late,
)
from connect_kv.framework.known import KnownClasses, Unstorable
from connect_kv.framework.shapes import Shape, shape_of

_BY_ANNOTATION, _WITH_EXACT = 1, 2
"""Formats. The first is that of old; the second has a part for what is stored as it is."""
_EXAMPLES: dict[type, str] = {
    list: "list[str]",
    dict: "dict[str, int]",
    frozenset: "frozenset[str]",
    set: "set[str]",
    tuple: "tuple[int, ...]",
    types.NoneType: "str | None",
}


class Attributes:
    """How the attributes of one class become bytes and back.

    Made once, from an object in its first state, which must come back equal. Raises ConfigError
    naming the attribute that does not.
    """

    def __init__(self, machine: object, base: type) -> None:
        self._owner = type(machine)
        classes = classes_of(self._owner, base)
        refuse_hidden_state(classes)
        self.caches = cached_properties(classes)
        """Names of cached properties."""
        self._annotations = annotations_of(self._owner, classes)
        state = {name: value for name, value in vars(machine).items() if name not in self.caches}
        for one in classes:
            refuse_late(self._owner, one, {*state, *self._annotations})
        for name, value in state.items():
            self._note_type(name, value)
        for name, hint in self._annotations.items():
            if reason := KnownClasses([hint]).refused():
                raise ConfigError(f"{self._owner.__name__}.{name}: {reason}; or define snapshot and restore")
        self.known = KnownClasses(self._annotations.values())
        self._shapes: dict[str, Shape | None] = {
            name: shape_of(hint) for name, hint in self._annotations.items()
        }
        self._decoders: dict[str, msgspec.msgpack.Decoder[object]] = {}
        for name, value in state.items():
            self._check_round_trip(name, value)
        self._first, self._first_names = self._pack(state), tuple(state)

    @property
    def names(self) -> frozenset[str]:
        """Of all attributes that there may be."""
        return frozenset(self._annotations)

    def dump(self, state: Mapping[str, object]) -> list[bytes]:
        """All attributes, in pieces. Raises ConfigError for one that would not come back as it is."""
        return data.in_chunks(self._pack(state))

    def load(
        self, state: MutableMapping[str, object], chunks: Iterable[bytes], *, complete: bool = True
    ) -> None:
        """Replace all attributes. One that the snapshot does not know gets its first value if `complete`."""
        restored = self._unpack(b"".join(chunks))
        state.clear()
        state.update(restored)
        if complete:
            self.complete(state)

    def complete(self, state: MutableMapping[str, object]) -> None:
        """Give each attribute that is not there its first value."""
        if not state.keys() >= set(self._first_names):
            first = self._unpack(self._first)
            state.update((name, first[name]) for name in self._first_names if name not in state)

    def digest(self, state: Mapping[str, object]) -> bytes:
        """The same bytes for the same state in every process, whatever the order of its sets."""
        shown = {name: value for name, value in state.items() if name not in self.caches}
        return exact.encode(shown, self.known, canonical=True)

    def refusal(self, name: str, value: object) -> str | None:
        """Why an attribute with that value cannot be stored, with the path to the cause; None if it can."""
        shape, where = self._shapes.get(name), f"{self._owner.__name__}.{name}"
        try:
            if shape is None or not shape.holds((value,), set()):
                exact.encode(value, self.known)
        except Unstorable as error:
            return f"{where}{error.path} cannot be stored: {error.reason}"
        except Exception as error:  # of code of its classes that reading an attribute runs, or of its depth
            return f"{where} cannot be stored: {type(error).__name__}: {error}"
        return None

    def _check_round_trip(self, name: str, value: object) -> None:
        """Raises ConfigError for a first value that does not come back."""
        try:
            back = self._unpack(self._pack({name: value}))[name]
            alike = self.digest({name: back}) == self.digest({name: value})
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            raise ConfigError(f"{self._owner.__name__}.{name} cannot be stored: {error}") from None
        if not alike:
            raise ConfigError(
                f"{self._owner.__name__}.{name}: {value!r} does not come back equal but as {back!r}; "
                "define snapshot and restore"
            )

    def _pack(self, state: Mapping[str, object]) -> bytes:
        by_annotation: dict[str, bytes] = {}
        as_they_are: dict[str, object] = {}
        met: set[int] = set()
        for name, value in state.items():
            if name in self.caches:
                continue
            if name not in self._annotations:
                raise ConfigError(
                    f"{self._owner.__name__}.{name} appeared after the start: set or annotate it in __init__"
                )
            packed = self._by_annotation(name, value, met)
            if packed is None:
                as_they_are[name] = value
            else:
                by_annotation[name] = packed
        if not as_they_are:
            return data.encode([_BY_ANNOTATION, by_annotation])
        return self._pack_exact(state, by_annotation, as_they_are, met)

    def _by_annotation(self, name: str, value: object, met: set[int]) -> bytes | None:
        shape = self._shapes[name]
        own: set[int] = set()
        if shape is None or not shape.holds((value,), own) or not own.isdisjoint(met):
            return None
        try:
            packed = b"m" + data.encode(value)
        except (OverflowError, UnicodeEncodeError):
            return None  # an integer beyond 64 bits, or text that is no UTF-8
        met |= own
        return packed

    def _pack_exact(
        self,
        state: Mapping[str, object],
        by_annotation: dict[str, bytes],
        as_they_are: dict[str, object],
        met: set[int],
    ) -> bytes:
        writer = exact.Writer(self.known)
        try:
            stored = writer.encode(as_they_are)
            if not met.isdisjoint(writer.numbers):
                # One of them holds an object of those stored by annotation, which would become two.
                shown = {name: value for name, value in state.items() if name not in self.caches}
                by_annotation, stored = {}, exact.encode(shown, self.known)
        except Unstorable as error:
            raise ConfigError(
                f"{self._owner.__name__}{_dotted(error.path)} cannot be stored: {error}"
            ) from None
        order = [name for name in state if name not in self.caches]
        return data.encode([_WITH_EXACT, by_annotation, stored, order])

    def _unpack(self, packed: bytes) -> dict[str, object]:
        owner = self._owner.__name__
        try:
            version, attributes, *more = msgspec.msgpack.decode(packed, type=list[typing.Any])
            parts = msgspec.convert(attributes, dict[str, bytes])
            as_they_are, order = msgspec.convert(more or (b"", ()), tuple[bytes, tuple[str, ...]])
        except (msgspec.DecodeError, msgspec.ValidationError, ValueError) as error:
            raise ValueError(f"not a snapshot of {owner}: {error}") from None
        if version != (_WITH_EXACT if more else _BY_ANNOTATION):
            raise ValueError(f"a snapshot of {owner} in format {version}, which this version does not know")
        restored = {name: self._decode(name, part) for name, part in parts.items()}
        if more:
            restored.update(exact.decode(as_they_are, self.known))
            restored = {name: restored[name] for name in order}
        if strangers := sorted(restored.keys() - self._annotations.keys()):
            raise ConfigError(
                f"{owner}: a snapshot has an attribute {strangers[0]!r} that the class does not "
                "declare; keep it, or define restore"
            )
        return restored

    def _decode(self, name: str, packed: bytes) -> object:
        """By annotation, as ``m``: msgpack, or of old ``j``: JSON, whose integers have no limit."""
        wanted = typing.cast(type, self._annotations.get(name, typing.Any))  # the stub only knows classes
        if packed[:1] == b"j":
            return msgspec.json.decode(memoryview(packed)[1:], type=wanted)
        if (decoder := self._decoders.get(name)) is None:
            decoder = self._decoders[name] = msgspec.msgpack.Decoder(wanted)
        return decoder.decode(memoryview(packed)[1:])

    def _note_type(self, name: str, value: object) -> None:
        """A value of a type that says it all needs no annotation. Raises ConfigError for others."""
        if name in self._annotations:
            return
        if isinstance(value, list | dict | set | tuple | frozenset | types.NoneType):
            example = f"self.{name}: {_EXAMPLES[next(t for t in _EXAMPLES if isinstance(value, t))]}"
            raise ConfigError(f"{self._owner.__name__}.{name} needs an annotation, such as '{example} = ...'")
        self._annotations[name] = type(value)


def _dotted(path: str) -> str:
    """``['rates'][3]`` as ``.rates[3]``: attributes were written as a dict."""
    name, quote, rest = path.removeprefix("['").partition("']")
    return f".{name}{rest}" if quote else path
