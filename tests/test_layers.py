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
    "cli": {
        "cli",
        "bench",
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


@pytest.mark.parametrize("path", sorted((PACKAGE / "raft").glob("*.py")), ids=lambda path: path.name)
def test_the_core_cannot_touch_a_clock_a_socket_or_a_disk(path: Path) -> None:
    outside = {name.split(".")[0] for name in imports(path)}
    assert not outside & RAFT_STANDARD_LIBRARY_BAN
