"""Which attributes a class declares, and as what: read from the class and the source of `__init__`."""

from __future__ import annotations

import ast
import inspect
import textwrap
import types
import typing
from collections.abc import Container, Iterable, Iterator
from functools import cached_property, lru_cache

from connect_kv.errors import ConfigError

_SHARED = (list, dict, set, bytearray)


def classes_of(owner: type, base: type) -> list[type]:
    """Those whose attributes are state: `owner` and what it is derived from, down to `base`."""
    return [one for one in owner.__mro__ if issubclass(one, base) and one is not base]


def cached_properties(classes: Iterable[type]) -> frozenset[str]:
    """What they keep in an object is no state: it can be computed again."""
    return frozenset(
        value.attrname or name
        for one in classes
        for name, value in vars(one).items()
        if isinstance(value, cached_property)
    )


def refuse_late(owner: type, one: type, known: Container[str]) -> None:
    """An attribute first set by a command would be missing, or untyped, in a snapshot."""
    for function, self_name, tree in sources_of(one):
        for node in ast.walk(tree):
            if not isinstance(node, ast.Attribute) or not isinstance(node.value, ast.Name):
                continue
            if node.value.id != self_name or isinstance(node.ctx, ast.Load):
                continue
            name = mangled(one, node.attr)
            where = f"{owner.__name__}.{node.attr}"
            if isinstance(node.ctx, ast.Del):
                if function == "upgrade":
                    continue  # there, and nowhere else, an attribute of older versions ends
                raise ConfigError(f"{where} is deleted in {function}: set it to None instead")
            if name not in known and not is_property(one, name):
                raise ConfigError(f"{where} is first set in {function}: set or annotate it in __init__")


def refuse_hidden_state(classes: Iterable[type]) -> None:
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


def annotations_of(owner: type, classes: list[type]) -> dict[str, object]:
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
    for function, self_name, tree in sources_of(one):
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
    return mangled(one, target.attr)


def mangled(one: type, name: str) -> str:
    """The name under which Python keeps ``self.__name``."""
    private = name.startswith("__") and not name.endswith("__")
    return f"_{one.__name__.lstrip('_')}{name}" if private else name


def sources_of(one: type) -> Iterator[tuple[str, str, ast.FunctionDef]]:
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


def is_property(one: type, name: str) -> bool:
    """Whether assignment goes to a property, which sets something else."""
    return isinstance(inspect.getattr_static(one, name, None), property)
