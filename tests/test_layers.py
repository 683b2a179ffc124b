"""Imports go one way: each room may import what is listed for it, and nothing else of ours.

A room is a package, a package within `frontend` or `testing`, or a module beside them. A room that is not
listed fails: whoever builds one says where it stands.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "connect_kv"
OUTSIDE = ("chaos", "benchmarks", "examples", "website")
"""Beside the package, and not in what is installed: nothing within it may need them."""

HOUSES = {"frontend", "testing"}
"""Packages whose rooms are their own packages."""

GROUND = {"errors", "etcd_errors", "events", "protowire", "rpc", "trailers"}
PEOPLE = {"config", "metrics"}
"""What settings and figures look like."""
TLS = {"certificates", "credentials"}
"""Who this process is, and whom it trusts."""

ALLOWED: dict[str, set[str]] = {
    # the ground
    "errors": set(),
    "etcd_errors": {"errors", "rpc"},
    "events": set(),
    "trailers": set(),
    "protowire": set(),
    "http2": {"trailers"},
    "json_mapping": set(),
    "rpc": set(),
    "metrics": set(),
    "grpc_core": set(),
    "options": set(),
    "tracing": set(),
    "otel": {"errors", "tracing"},
    "etcd_flags": set(),
    "units": set(),
    "hosts": {"errors"},
    "certificates": {"hosts"},
    "handshakes": set(),
    "credentials": {"certificates", "errors", "handshakes"},
    "authority": {"certificates", "errors"},
    "raft": {"errors"},
    "peer_protocol": {"raft"},
    "interfaces": {"peer_protocol", "raft"},
    "etcd_files": {"errors", "protowire", "rpc"},
    "storage": {"interfaces", "raft", "protowire", "errors"},
    "transport": {"hosts", "http2", "peer_protocol", "interfaces", "raft", *GROUND, *TLS},
    "node": {"tracing", "peer_protocol", "raft", "interfaces", "protowire", "errors", "events", "hosts"},
    # what is replicated
    "kv": {"etcd_files", "interfaces", "raft", "storage", *GROUND},
    "auth": {"etcd_files", "kv", "storage", "interfaces", *GROUND},
    "framework": {"options", "errors"},
    "statemachine": {"auth", "etcd_files", "kv", "framework", "interfaces", "raft", "storage", *GROUND},
    "backup": {
        "auth", "etcd_files", "kv", "statemachine", "node", "raft", "storage", "interfaces", "config",
        *GROUND,
    },
    # services know requests, front ends know wires
    "services": {
        "auth",
        "backup", "kv", "statemachine", "framework", "node", "interfaces", "raft", "metrics", "tracing",
        *GROUND,
    },
    "frontend.grpc": {
        "tracing", "auth", "hosts", "http2", "services", "kv", "interfaces", *GROUND, *PEOPLE, *TLS,
    },
    # The gateway carries requests to the router of `frontend.grpc`, which knows no wire.
    "frontend.http": {
        "frontend.grpc", "http2", "json_mapping", "services", "errors", "etcd_errors", "events",
        *PEOPLE, *TLS,
    },
    "config": {"credentials", "errors", "framework", "hosts", "options", "units"},
    "server": {
        "auth", "http2", "otel", "tracing",
        "frontend.grpc", "frontend.http", "services", "kv", "statemachine", "framework", "node", "raft",
        "hosts", "storage", "transport", "interfaces", "peer_protocol", "grpc_core", *GROUND, *PEOPLE, *TLS,
        "authority",
    },
    # programs and people
    "client": {"tracing", "framework", "hosts", "credentials", *GROUND},
    "mirror": {"client", *GROUND},
    "sync_auth": {"client", "rpc"},
    "sync": {"client", "credentials", "errors", "framework", "sync_auth"},
    "containers": {"client", "framework", "errors"},
    "types": {"containers"},
    "bench": {"client", "credentials", "framework", *GROUND},
    "testing.checker": set(),
    "testing.simulation": {
        "auth", "frontend.grpc", "services", "peer_protocol",
        "testing.checker", "client", "server", "statemachine", "kv", "framework", "node", "raft", "storage",
        "transport", "interfaces", "config", *GROUND,
    },
    "testing": {"connect_kv", "testing.simulation", "client", "credentials", "framework"},
    "cli": {
        "etcd_flags", "grpc_core", "mirror", "options", "services", "units",
        "testing.simulation", "testing.checker", "backup", "bench", "client", "sync", "server",
        "statemachine", "storage", "framework", "raft", "config", "errors", "authority", "certificates",
        "credentials",
    },
    "embed": {"server", "statemachine", "config", "framework", "errors"},
    "connect_kv": {"client", "credentials", "embed", "framework", "errors"},
}  # fmt: skip

FACE = {
    "client",
    "config",
    "credentials",
    "embed",
    "errors",
    "framework",
    "handshakes",
    "hosts",
    "options",
    "units",
}
"""What `import connect_kv` loads: no part of a server."""

HTTP2_SHELLS = {"handshakes.py", "listener.py", "tasks.py", "channel.py", "sockets.py"}
"""The files of http2 that know sockets and a loop."""

RAFT_STANDARD_LIBRARY_BAN = {"asyncio", "time", "os", "logging", "socket", "threading", "pathlib", "secrets"}


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path.parent.name != "rpc")


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> Iterator[str]:
    """Dotted names of the modules that a file imports, within functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            assert node.module is not None
            for alias in node.names:
                inner = ROOT / node.module.replace(".", "/") / alias.name
                is_module = inner.with_suffix(".py").exists() or (inner / "__init__.py").exists()
                yield f"{node.module}.{alias.name}" if is_module else node.module


def room(name: str) -> str:
    """The room that a module belongs to."""
    parts = name.split(".")
    if len(parts) == 1:
        return parts[0]
    if len(parts) > 2 and parts[1] in HOUSES and (PACKAGE / parts[1] / parts[2]).is_dir():
        return f"{parts[1]}.{parts[2]}"
    return parts[1]


def test_every_room_is_listed_and_every_listed_room_is_there() -> None:
    rooms = {room(dotted(path)) for path in modules() if path.read_text()} | {"rpc"}
    assert rooms == set(ALLOWED)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    here = room(dotted(path))
    ours = {room(name) for name in imports(path) if name.split(".")[0] == "connect_kv"} - {here}
    assert ours <= ALLOWED.get(here, set()), (
        f"{here} may not import {sorted(ours - ALLOWED.get(here, set()))}"
    )


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_installed_needs_what_is_not(path: Path) -> None:
    assert not {name.split(".")[0] for name in imports(path)} & set(OUTSIDE)


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


@pytest.mark.parametrize("path", sorted((PACKAGE / "http2").glob("*.py")), ids=lambda path: path.name)
def test_the_cores_of_http2_cannot_touch_a_clock_or_a_socket(path: Path) -> None:
    outside = {name.split(".")[0] for name in imports(path)}
    assert path.name in HTTP2_SHELLS or not outside & RAFT_STANDARD_LIBRARY_BAN
