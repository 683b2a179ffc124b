"""Imports go one way: each package may import what is listed for it, and nothing else of ours."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "connect_kv"

BASE = {"errors", "rpc", "config", "metrics"}
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "rpc": {"rpc"},
    "config": {"errors", "framework"},
    "metrics": set(),
    "raft": {"raft", "errors"},
    "interfaces": {"raft"},
    "storage": {"storage", "interfaces", "raft", "errors"},
    "transport": {"transport", "interfaces", "raft", "rpc", "errors"},
    "node": {"node", "raft", "interfaces", "errors", "metrics"},
    "kv": {"kv", "interfaces", "raft", "storage", "rpc", "errors"},
    "framework": {"framework", "interfaces", "raft", "errors"},
    "machines": {"machines", "kv", "framework", "interfaces", "raft", "storage", "rpc", "errors"},
    "api": {"api", "kv", "machines", "framework", "node", "interfaces", "raft", *BASE},
    "client": {"client", "rpc", "errors", "framework"},
    "bench": {"bench", "client", "rpc", "errors", "framework"},
    "sync": {"client", "errors", "framework"},
    "grpc_core": set(),
    "cli": {
        "cli",
        "bench",
        "grpc_core",
        "client",
        "server",
        "serving",
        "sim",
        "config",
        "storage",
        "errors",
        "framework",
        "raft",
        "sync",
    },
}
"""What is not listed (server, sim, testing, the package itself) may import everything but cli."""

FACE = {"client", "config", "embed", "errors", "framework"}
"""What `import connect_kv` loads: no part of a server."""

RAFT_STANDARD_LIBRARY_BAN = {"asyncio", "time", "os", "logging", "socket", "threading", "pathlib", "secrets"}


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path.parent.name != "rpc")


def imports(path: Path) -> Iterator[str]:
    """Dotted names of the modules that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            assert node.module is not None
            yield node.module
            if node.module == "connect_kv":
                yield from (f"connect_kv.{alias.name}" for alias in node.names)


def part(path: Path) -> str:
    """The package, or top-level module, that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    ours = {name.split(".")[1] for name in imports(path) if name.startswith("connect_kv.")}
    here = part(path)
    allowed = ALLOWED.get(here)
    if allowed is None:
        assert "cli" not in ours or here == "cli"
    else:
        assert ours <= allowed, f"{here} may not import {sorted(ours - allowed)}"


def at_once(path: Path) -> set[str]:
    """The modules of ours that are loaded when this one is: not those that functions import later."""
    found: set[str] = set()
    waiting: list[ast.stmt] = list(ast.parse(path.read_text()).body)
    while waiting:
        match waiting.pop():
            case ast.Import(names=names):
                found.update(alias.name for alias in names)
            case ast.ImportFrom(module=str(module), names=names):
                found.add(module)
                found.update(f"{module}.{alias.name}" for alias in names)
            case ast.If(test=ast.Name(id="TYPE_CHECKING"), orelse=other):
                waiting += other
            case ast.If(body=body, orelse=other) | ast.Try(body=body, orelse=other):
                waiting += [*body, *other]
            case _:
                pass
    return found


def dotted(path: Path) -> str:
    """What a file is imported as."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_the_face_of_the_package_shows_no_server() -> None:
    ours = {name for name in at_once(PACKAGE / "__init__.py") if name.startswith("connect_kv.")}
    assert {name.split(".")[1] for name in ours} <= FACE


def test_whichever_module_is_imported_first_its_imports_can_be_met() -> None:
    """No circle: else one module works or not by what was imported before it."""
    files = {dotted(path): path for path in modules()}
    needs = {
        name: {
            other
            for module in at_once(path)
            for other in (module, module.rpartition(".")[0])
            if other in files and other not in ("connect_kv", name)
        }
        for name, path in files.items()
    }
    while free := [name for name, others in needs.items() if not others & needs.keys()]:
        for name in free:
            del needs[name]
    assert not needs, f"in a circle, or above one: {sorted(needs)}"


@pytest.mark.parametrize("path", sorted((PACKAGE / "raft").glob("*.py")), ids=lambda path: path.name)
def test_the_core_cannot_touch_a_clock_a_socket_or_a_disk(path: Path) -> None:
    outside = {name.split(".")[0] for name in imports(path)}
    assert not outside & RAFT_STANDARD_LIBRARY_BAN
