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
from connect_kv.framework.types import Kind

MARK = "__connect_kv_kind__"

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
        self.name = name
        self.kind = Kind(getattr(function, MARK))
        self.doc = inspect.getdoc(function) or ""
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            raise ConfigError(f"{where}: a {self.kind.value} is a plain function, not async")
        self._function = function
        self._signature = inspect.signature(function)
        parameters = list(self._signature.parameters.values())[1:]
        hints = _hints(owner, function, where)
        self.parameters = tuple(_parameter(parameter, hints, where) for parameter in parameters)
        # Positional where possible: that is the cheapest way to call.
        self._keywords = tuple(p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY)
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
        """The arguments of a Python call, with defaults filled in. Raises BadCall.

        For the calling side: what is sent is checked here already, so that a mistake costs no
        round trip.
        """
        try:
            bound = self._signature.bind(None, *args, **kwargs)
        except TypeError as error:
            raise BadCall(f"{self.name}: {error}") from None
        given = dict(list(bound.arguments.items())[1:])
        try:
            return self.check(data.encode(given))
        except (TypeError, OverflowError, RecursionError) as error:
            raise BadCall(f"{self.name}: {error}") from None
        except WrongArguments as error:
            raise BadCall(f"{self.name}: {error}") from None

    def check(self, arguments: bytes) -> bytes:
        """The same arguments with defaults filled in, as they enter the log. Raises WrongArguments."""
        try:
            return self._complete(self._decode(arguments))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise WrongArguments(_plain(error)) from None
        except RecursionError:
            raise WrongArguments(_TOO_DEEP) from None

    def check_json(self, arguments: str) -> bytes:
        """Likewise, from a JSON object; no text is the same as ``{}``."""
        try:
            return self._complete(self._decode_json(arguments or "{}"))
        except (msgspec.DecodeError, UnicodeError, OverflowError) as error:
            raise WrongArguments(_plain(error)) from None
        except RecursionError:
            raise WrongArguments(_TOO_DEEP) from None

    def _complete(self, arguments: object) -> bytes:
        encoded = data.encode(arguments)
        if self._may_nest and data.too_deep(encoded):
            raise WrongArguments(_TOO_DEEP)
        return encoded

    def call(self, machine: object, arguments: bytes) -> bytes:
        """Decode, run on `machine`, encode what it returns. Raises WrongArguments, or what it raises."""
        values = self.arguments(arguments)
        if keywords := self._keywords:
            split = len(values) - len(keywords)
            value = self._function(
                machine, *values[:split], **dict(zip(keywords, values[split:], strict=True))
            )
        else:
            value = self._function(machine, *values)
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


@functools.cache
def methods_of(owner: type) -> Mapping[str, Method]:
    """The commands and queries of a class, inherited ones included, by name.

    Raises ConfigError naming a method whose signature cannot be carried as data.
    """
    found: dict[str, Method] = {}
    for name in sorted(dir(owner)):
        function = inspect.getattr_static(owner, name)
        if hasattr(getattr(function, "__func__", function), MARK):
            if not inspect.isfunction(function):
                raise ConfigError(f"{owner.__name__}.{name}: only plain methods can be commands or queries")
            found[name] = Method(owner, name, function)
    return found


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
