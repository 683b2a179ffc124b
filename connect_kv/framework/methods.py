"""What a class offers: its commands and queries, and their arguments and values as data."""

from __future__ import annotations

import copy
import functools
import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from connect_kv.errors import BadCall, ConfigError
from connect_kv.framework import data
from connect_kv.framework.types import MARK, Mark

_TOO_DEEP = f"values are nested more than {data.MAXIMUM_NESTING} deep"
_EXACT = (int, str, bytes, bool, float, type(None))
"""Values of exactly these types need no look when the annotation names the same type."""


class WrongArguments(Exception):
    """Arguments that a method does not take. Says what is wrong with them."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a method."""

    name: str
    type: str
    """The annotation, as text."""
    required: bool


class Method:
    """One command or query: how it is called with data, on either side of the wire."""

    def __init__(self, owner: type, name: str, function: Callable[..., object]) -> None:
        where = f"{owner.__name__}.{name}"
        mark = mark_of(function)
        assert mark is not None
        self.name = mark.of or name
        """Under which it is called: an older body has another one in Python."""
        self.kind = mark.kind
        self.raises = mark.raises
        self.doc = inspect.getdoc(function) or ""
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            raise ConfigError(f"{where}: a {self.kind.value} is a plain function, not async")
        self.function = function
        self._signature = inspect.signature(function)
        parameters = list(self._signature.parameters.values())[1:]
        hints = _hints(owner, function, where)
        self.parameters = tuple(_parameter(parameter, hints, where) for parameter in parameters)
        # Positional where possible: that is the cheapest way to call.
        self._keywords = tuple(p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY)
        self._positional = tuple(p.name for p in parameters if p.kind is not inspect.Parameter.KEYWORD_ONLY)
        self._names = frozenset(p.name for p in parameters)
        self._required = frozenset(p.name for p in self.parameters if p.required)
        self._arguments = msgspec.defstruct(
            "Arguments",
            [_field(parameter, hints) for parameter in parameters],
            kw_only=True,
            forbid_unknown_fields=True,
        )
        self._may_nest = any(data.may_nest(hints[parameter.name]) for parameter in parameters)
        self._decode = msgspec.msgpack.Decoder(self._arguments).decode
        self._decode_json = msgspec.json.Decoder(self._arguments).decode
        returns = _returns(hints, where)
        self.returns = data.text_of(returns)
        self._exact = returns if returns in _EXACT else None
        self._value_decoder: msgspec.msgpack.Decoder[object] = msgspec.msgpack.Decoder(returns)

    def bind(self, args: Sequence[object], kwargs: Mapping[str, object]) -> bytes:
        """The arguments of a Python call, those that were given. Raises BadCall.

        For the calling side: what is sent is checked here already, so that a mistake costs no
        round trip. Defaults are left to the body that runs, which may be of another version.
        """
        given = self._given(args, kwargs)
        try:
            return self.check(data.encode(given))
        except (TypeError, OverflowError, RecursionError) as error:
            raise BadCall(f"{self.name}: {error}") from None
        except WrongArguments as error:
            raise BadCall(f"{self.name}: {error}") from None

    def _given(self, args: Sequence[object], kwargs: Mapping[str, object]) -> dict[str, object]:
        """Arguments by name. Raises BadCall."""
        if len(args) <= len(self._positional):
            given: dict[str, object] = dict(zip(self._positional, args, strict=False)) if args else {}
            given.update(kwargs)
            names = given.keys()
            # As many as were given, or one was given twice.
            if len(given) == len(args) + len(kwargs) and names <= self._names and names >= self._required:
                return given
        # Whatever is wrong: the signature has the words that Python has for it, and takes ten times as long.
        try:
            bound = self._signature.bind(None, *args, **kwargs)
        except TypeError as error:
            raise BadCall(f"{self.name}: {error}") from None
        return dict(list(bound.arguments.items())[1:])

    def check(self, arguments: bytes) -> bytes:
        """Arguments as they enter the log: as they were given. Raises WrongArguments."""
        try:
            self._decode(arguments)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise WrongArguments(_plain(error)) from None
        except RecursionError:
            raise WrongArguments(_TOO_DEEP) from None
        except BaseException as error:  # of a class of the user's, such as a __post_init__
            raise WrongArguments(f"{type(error).__name__}: {error}") from error
        return self._not_too_deep(arguments)

    def check_json(self, arguments: str) -> bytes:
        """Arguments as they enter the log, from a JSON object; no text is the same as ``{}``."""
        text = arguments or "{}"
        try:
            values = self._decode_json(text)
            given = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
            return self._not_too_deep(data.encode({name: getattr(values, name) for name in given}))
        except (msgspec.DecodeError, UnicodeError, OverflowError) as error:
            raise WrongArguments(_plain(error)) from None
        except RecursionError:
            raise WrongArguments(_TOO_DEEP) from None
        except WrongArguments:
            raise
        except BaseException as error:
            raise WrongArguments(f"{type(error).__name__}: {error}") from error

    def _not_too_deep(self, encoded: bytes) -> bytes:
        if self._may_nest and data.too_deep(encoded):
            raise WrongArguments(_TOO_DEEP)
        return encoded

    def call(self, machine: object, arguments: bytes) -> bytes:
        """Decode, run on `machine`, encode what it returns. Raises WrongArguments, or what it raises."""
        values = self.arguments(arguments)
        if keywords := self._keywords:
            split = len(values) - len(keywords)
            value = self.function(
                machine, *values[:split], **dict(zip(keywords, values[split:], strict=True))
            )
        else:
            value = self.function(machine, *values)
        return self._encode_value(value)

    def arguments(self, arguments: bytes) -> tuple[object, ...]:
        """The values of all parameters, in their order. Raises WrongArguments."""
        try:
            return msgspec.structs.astuple(self._decode(arguments))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise WrongArguments(_plain(error)) from None

    def value(self, value: bytes) -> object:
        """A return value on the calling side."""
        return self._value_decoder.decode(value)

    def value_json(self, value: bytes) -> str:
        """A return value as JSON, by its annotation."""
        return msgspec.json.encode(self._value_decoder.decode(value)).decode()

    def _encode_value(self, value: object) -> bytes:
        encoded = data.encode(value)
        if type(value) is not self._exact:
            try:
                self._value_decoder.decode(encoded)
            except msgspec.DecodeError as error:
                raise TypeError(f"{self.name} returned something else than {self.returns}: {error}") from None
        return encoded


def mark_of(function: object) -> Mark | None:
    """What its author said of a function, if it is a command, a query or an older body of one."""
    mark = getattr(function, MARK, None)
    return mark if isinstance(mark, Mark) else None


def _hints(owner: type, function: Callable[..., object], where: str) -> dict[str, object]:
    try:
        return typing.get_type_hints(function, localns={owner.__name__: owner}, include_extras=True)
    except NameError as error:
        raise ConfigError(f"{where}: {error}: annotations must name what its module knows") from None


def _parameter(parameter: inspect.Parameter, hints: Mapping[str, object], where: str) -> Parameter:
    where = f"{where}: parameter {parameter.name!r}"
    if parameter.kind not in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY):
        raise ConfigError(f"{where}: arguments travel by name; '*', '**' and '/' are not possible")
    if parameter.name not in hints:
        raise ConfigError(f"{where} needs an annotation, such as ': int'")
    if reason := data.not_data(hints[parameter.name], exact=False):
        raise ConfigError(f"{where}: {reason}")
    required = parameter.default is inspect.Parameter.empty
    return Parameter(parameter.name, data.text_of(hints[parameter.name]), required)


def _field(parameter: inspect.Parameter, hints: Mapping[str, object]) -> tuple[str, type, object]:
    # msgspec takes any annotation here; its stub only knows classes.
    annotation = typing.cast(type, hints[parameter.name])
    if parameter.default is inspect.Parameter.empty:
        return parameter.name, annotation, msgspec.NODEFAULT
    if type(parameter.default) in _EXACT:  # which nobody can change: no call needs a copy of its own
        return parameter.name, annotation, parameter.default
    fresh = functools.partial(copy.deepcopy, parameter.default)
    return parameter.name, annotation, msgspec.field(default_factory=fresh)


def _returns(hints: Mapping[str, object], where: str) -> object:
    if "return" not in hints:
        raise ConfigError(f"{where}: say what it returns, such as '-> int' or '-> None'")
    if reason := data.not_data(hints["return"], exact=False):
        raise ConfigError(f"{where}: return value: {reason}")
    return hints["return"]


def _plain(error: Exception) -> str:
    """The words of msgspec in ours: arguments are neither an object nor an array to the caller."""
    text = str(error)
    text = text.replace("Object missing required field", "missing argument")
    text = text.replace("Object contains unknown field", "unknown argument")
    return text.replace(" - at `$.", " - argument `")
