"""The default snapshot: all attributes of an object, each by its annotation."""

from __future__ import annotations

import ast
import inspect
import textwrap
import types
import typing
from collections.abc import Iterable, Iterator, MutableMapping
from functools import lru_cache

import msgspec

from connect_kv.errors import ConfigError
from connect_kv.framework import data

_SCALARS = (int, str, bytes, bool, float)
_SHARED = (list, dict, set, bytearray)
_FORMAT = 1


class Attributes:
    """How the attributes of one class become bytes and back.

    Made once, from an object in its first state, which must come back equal. Raises ConfigError
    naming the attribute that does not.
    """

    def __init__(self, machine: object, base: type) -> None:
        self._owner = type(machine)
        classes = [one for one in self._owner.__mro__ if issubclass(one, base) and one is not base]
        _refuse_hidden_state(classes)
        self._annotations = _annotations(self._owner, classes)
        self._decoders: dict[str, _Decoders] = {}
        state = vars(machine)
        for one in classes:
            self._refuse_late(one, state)
        self._first = {name: self._checked(name, value) for name, value in state.items()}

    def dump(self, state: MutableMapping[str, object]) -> list[bytes]:
        """All attributes, in pieces. Raises ConfigError for one that could not be read again.

        Better now than at the next start: the log, from which it can be rebuilt, is still there.
        """
        stored = {}
        for name, value in state.items():
            where = f"{self._owner.__name__}.{name}"
            if name not in self._first and name not in self._annotations:
                raise ConfigError(f"{where} appeared after the start: set or annotate it in __init__")
            try:
                stored[name] = self._encode(name, value)
                self._decode(name, stored[name])
            except (TypeError, ValueError) as error:
                raise ConfigError(f"{where} cannot be stored: {error}") from None
        return data.in_chunks(data.encode([_FORMAT, stored]))

    def load(self, state: MutableMapping[str, object], chunks: Iterable[bytes]) -> None:
        """Replace all attributes. One that the snapshot does not know gets its first value again."""
        stored = _read(b"".join(chunks), self._owner.__name__)
        restored = {name: self._decode(name, value) for name, value in {**self._first, **stored}.items()}
        state.clear()
        state.update(restored)

    def _checked(self, name: str, value: object) -> bytes:
        where = f"{self._owner.__name__}.{name}"
        try:
            encoded = self._encode(name, value)
            back = self._decode(name, encoded)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise ConfigError(f"{where} cannot be stored: {error}") from None
        if not data.same(value, back):
            annotation = data.text_of(self._annotation(name, value))
            raise ConfigError(
                f"{where}: {value!r}, stored as {annotation}, does not come back equal but as {back!r}; "
                "correct its annotation, or define snapshot and restore"
            )
        return encoded

    def _encode(self, name: str, value: object) -> bytes:
        self._decoders_of(name, value)
        try:
            return b"m" + data.encode(value)
        except OverflowError:
            return b"j" + msgspec.json.encode(value)  # slower, but its integers have no limit

    def _decode(self, name: str, encoded: bytes) -> object:
        decoders = self._decoders.get(name)
        if decoders is None:
            if name not in self._annotations:
                raise ConfigError(
                    f"{self._owner.__name__}: a snapshot has an attribute {name!r} that the class does not "
                    "declare; keep it, or define restore"
                )
            decoders = self._decoders_of(name, None)
        decoder = decoders.msgpack if encoded[:1] == b"m" else decoders.json
        return decoder.decode(memoryview(encoded)[1:])

    def _decoders_of(self, name: str, value: object) -> _Decoders:
        if (decoders := self._decoders.get(name)) is None:
            decoders = self._decoders[name] = _Decoders(self._annotation(name, value))
        return decoders

    def _annotation(self, name: str, value: object) -> object:
        where = f"{self._owner.__name__}.{name}"
        annotation = self._annotations.get(name)
        if annotation is None:
            annotation = type(value)
            if isinstance(value, list | dict | set | tuple | frozenset | types.NoneType):
                example = f"self.{name}: {_EXAMPLES[next(t for t in _EXAMPLES if isinstance(value, t))]}"
                raise ConfigError(f"{where} needs an annotation, such as '{example} = ...'")
        if reason := data.not_data(annotation, exact=True):
            raise ConfigError(f"{where}: {reason}; or define snapshot and restore")
        return annotation

    def _refuse_late(self, one: type, state: MutableMapping[str, object]) -> None:
        """An attribute first set by a command would be missing, or untyped, in a snapshot."""
        for function, self_name, tree in _methods(one):
            for node in ast.walk(tree):
                if not isinstance(node, ast.Attribute) or not isinstance(node.value, ast.Name):
                    continue
                if node.value.id != self_name or isinstance(node.ctx, ast.Load):
                    continue
                name = _mangled(one, node.attr)
                where = f"{self._owner.__name__}.{node.attr}"
                if isinstance(node.ctx, ast.Del):
                    raise ConfigError(f"{where} is deleted in {function}: set it to None instead")
                known = name in state or name in self._annotations
                if not known and not _is_descriptor(one, name):
                    raise ConfigError(f"{where} is first set in {function}: set or annotate it in __init__")


_EXAMPLES: dict[type, str] = {
    list: "list[str]",
    dict: "dict[str, int]",
    frozenset: "frozenset[str]",
    set: "set[str]",
    tuple: "tuple[int, ...]",
    types.NoneType: "str | None",
}


class _Decoders:
    """The two ways back for one annotation."""

    def __init__(self, annotation: object) -> None:
        wanted = typing.cast(type, annotation)  # msgspec takes any annotation; its stub only knows classes
        self.msgpack: msgspec.msgpack.Decoder[object] = msgspec.msgpack.Decoder(wanted)
        self.json: msgspec.json.Decoder[object] = msgspec.json.Decoder(wanted)


def _read(stored: bytes, owner: str) -> dict[str, bytes]:
    try:
        version, attributes = msgspec.msgpack.decode(stored, type=tuple[int, dict[str, bytes]])
    except msgspec.DecodeError as error:
        raise ValueError(f"not a snapshot of {owner}: {error}") from None
    if version != _FORMAT:
        raise ValueError(f"a snapshot of {owner} in format {version}, which this version does not know")
    return attributes


def _refuse_hidden_state(classes: Iterable[type]) -> None:
    """State that is not in the object's `__dict__` would be left out."""
    for one in classes:
        if "__slots__" in vars(one):
            raise ConfigError(f"{one.__name__}: __slots__ would hide attributes from snapshots; remove it")
        constants = {name for name, hint in _raw_annotations(one).items() if "ClassVar" in str(hint)}
        for name, value in vars(one).items():
            if isinstance(value, _SHARED) and not name.startswith("__") and name not in constants:
                raise ConfigError(
                    f"{one.__name__}.{name} belongs to the class and would be left out of snapshots: "
                    "set it in __init__, or annotate it as ClassVar if nothing changes it"
                )


def _annotations(owner: type, classes: list[type]) -> dict[str, object]:
    """Annotation of each attribute, as far as the classes and their `__init__` give one."""
    found: dict[str, object] = {}
    for one in reversed(classes):
        raw = {name: hint for name, hint in _raw_annotations(one).items() if "ClassVar" not in str(hint)}
        for name, hint in {**raw, **_init_annotations(one)}.items():
            found[name] = _resolve(owner, one, name, hint)
    return found


def _raw_annotations(one: type) -> dict[str, object]:
    return dict(inspect.get_annotations(one))


def _init_annotations(one: type) -> dict[str, object]:
    """``self.x: T = ...`` and ``self.x = parameter``, as text, from the source of `__init__`."""
    found: dict[str, object] = {}
    for function, self_name, tree in _methods(one):
        if function != "__init__":
            continue
        arguments = tree.args
        parameters = {
            argument.arg: ast.unparse(argument.annotation)
            for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
            if argument.annotation is not None
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.AnnAssign) and _is_attribute(node.target, self_name):
                found[_attribute(one, node.target)] = ast.unparse(node.annotation)
            elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Name):
                for target in node.targets:
                    if _is_attribute(target, self_name) and node.value.id in parameters:
                        found.setdefault(_attribute(one, target), parameters[node.value.id])
    return found


def _is_attribute(target: ast.expr, self_name: str) -> bool:
    return (
        isinstance(target, ast.Attribute)
        and isinstance(target.value, ast.Name)
        and target.value.id == self_name
    )


def _attribute(one: type, target: ast.expr) -> str:
    assert isinstance(target, ast.Attribute)
    return _mangled(one, target.attr)


def _mangled(one: type, name: str) -> str:
    """The name under which Python keeps ``self.__name``."""
    private = name.startswith("__") and not name.endswith("__")
    return f"_{one.__name__.lstrip('_')}{name}" if private else name


def _methods(one: type) -> Iterator[tuple[str, str, ast.FunctionDef]]:
    """(name, name of self, source) of a class's own methods; nothing where there is no source."""
    for name, function in vars(one).items():
        if not inspect.isfunction(function):
            continue
        tree = _tree(function)
        if tree is not None and (tree.args.posonlyargs or tree.args.args):
            first = (*tree.args.posonlyargs, *tree.args.args)[0]
            yield name, first.arg, tree


@lru_cache(maxsize=1024)
def _tree(function: types.FunctionType) -> ast.FunctionDef | None:
    """Its source, read once however many objects of its class there are."""
    try:
        source = textwrap.dedent(inspect.getsource(function))
        tree = ast.parse(source).body[0]
    except (OSError, TypeError, SyntaxError):
        return None  # typed at a prompt, or made by a dataclass: the values themselves are still checked
    return tree if isinstance(tree, ast.FunctionDef) else None


def _resolve(owner: type, one: type, name: str, hint: object) -> object:
    module = inspect.getmodule(one)
    names = dict(vars(module)) if module is not None else {}
    if "__init__" in vars(one) and inspect.isfunction(vars(one)["__init__"]):
        names.update(inspect.getclosurevars(vars(one)["__init__"]).nonlocals)
    holder = types.SimpleNamespace(__annotations__={name: hint})
    try:
        return typing.get_type_hints(
            holder, globalns=names, localns={one.__name__: one}, include_extras=False
        )[name]
    except NameError as error:
        raise ConfigError(
            f"{owner.__name__}.{name}: {error}: annotations must name what its module knows"
        ) from None


def _is_descriptor(one: type, name: str) -> bool:
    """Whether assignment goes to a property, which sets something else."""
    return isinstance(inspect.getattr_static(one, name, None), property)
