"""What a disk may hold after the power fails, worked out from a recording of a process's file operations.

`strace` records every operation on a data directory. From the recording, for any moment, directories are
built that a real file system could leave behind:

- of each file, what was written before its last completed fdatasync is there; of what came after it, nothing,
  everything, or a part (each file on its own);
- names (create, rename, unlink, mkdir) change in the order they were made, as on a journalling file
  system: syncing a directory, or a file, makes everything up to it durable; later changes are there up to
  some point.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

TRACED = (
    "openat,creat,write,pwrite64,writev,fsync,fdatasync,sync_file_range,rename,renameat,renameat2,"
    "unlink,unlinkat,ftruncate,mkdir,mkdirat,rmdir"
)


def tracer(output: Path) -> list[str]:
    """The command to run a process under, so that `read_trace` can read `output`."""
    return [
        "strace", "-f", "-ttt", "-y", "-xx", "-s", "67108864", "--seccomp-bpf", "--quiet=all",
        "-e", f"trace={TRACED}", "-e", "signal=none", "-o", str(output),
    ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Operation:
    """One file operation: when it was seen, what, on which path."""

    time: float
    kind: str
    """create, write, sync, rename, unlink, mkdir, rmdir, begin-sync (a sync that has not returned)."""
    path: str
    data: bytes = b""
    target: str = ""
    thread: int = 0


LINE = re.compile(r"^(\d+) +(\d+\.\d+) (.*)$")
CALL = re.compile(r"^(\w+)\((.*)$")
DESCRIPTOR = re.compile(r"^\d+<([^>]*)>")
QUOTED = re.compile(r'"([^"]*)"')


def plain(escaped: str) -> str:
    """A path that strace wrote as ``\\x2f\\x74...``."""
    return raw(escaped).decode()


def raw(escaped: str) -> bytes:
    return bytes.fromhex(escaped.replace("\\x", ""))


def read_trace(output: Path, root: Path) -> list[Operation]:
    """The successful operations on paths under `root`, in the order they took effect."""
    inside = str(root).rstrip("/")
    operations: list[Operation] = []
    pending: dict[int, tuple[str, str]] = {}
    with output.open(encoding="ascii", errors="replace") as lines:
        for line in lines:
            if not (match := LINE.match(line)):
                continue
            thread, time, rest = int(match[1]), float(match[2]), match[3]
            if rest.startswith("<..."):
                if thread in pending:
                    _, path = pending.pop(thread)
                    if not re.search(r"\) += -1 ", rest):
                        operations.append(Operation(time, "sync", path, thread=thread))
                continue
            if (call := CALL.match(rest)) is None or " = -1 " in rest[-80:]:
                continue
            for operation in _operations(call[1], call[2], time, thread):
                if operation.path.startswith(inside) or operation.target.startswith(inside):
                    operations.append(operation)
                    if operation.kind == "begin-sync":
                        if "<unfinished" in rest:
                            pending[thread] = (call[1], operation.path)
                        else:
                            operations.append(Operation(time, "sync", operation.path, thread=thread))
    return operations


def _operations(name: str, arguments: str, time: float, thread: int) -> Iterator[Operation]:
    if name in ("openat", "creat"):
        path = plain(QUOTED.findall(arguments)[0])
        if "O_CREAT" in arguments or name == "creat":
            yield Operation(time, "create" if "O_TRUNC" in arguments else "touch", path, thread=thread)
    elif name == "write":
        descriptor = DESCRIPTOR.match(arguments)
        assert descriptor is not None, arguments[:80]
        yield Operation(time, "write", plain(descriptor[1]) if "\\x" in descriptor[1] else descriptor[1],
                        raw(QUOTED.findall(arguments)[0]), thread=thread)  # fmt: skip
    elif name in ("fsync", "fdatasync"):
        descriptor = DESCRIPTOR.match(arguments)
        assert descriptor is not None, arguments[:80]
        yield Operation(time, "begin-sync", plain(descriptor[1]), thread=thread)
    elif name.startswith("rename"):
        paths = [plain(path) for path in QUOTED.findall(arguments)]
        yield Operation(time, "rename", paths[0], target=paths[1], thread=thread)
    elif name in ("unlink", "rmdir", "mkdir", "unlinkat", "mkdirat"):
        kind = {"unlinkat": "rmdir" if "AT_REMOVEDIR" in arguments else "unlink", "mkdirat": "mkdir"}.get(
            name, name
        )
        path = plain(QUOTED.findall(arguments)[0])
        if name.endswith("at") and not path.startswith("/"):
            path = plain(re.findall(r"<([^>]*)>", arguments)[0]) + "/" + path
        yield Operation(time, kind, path, thread=thread)
    else:
        # The databases write with write() and sync with fdatasync(); anything else must be taught here first.
        touched = [plain(path) for path in re.findall(r"<((?:\\x[0-9a-f]{2})+)>", arguments)]
        yield from (Operation(time, "unsupported " + name, path, thread=thread) for path in touched)


@dataclass(slots=True)
class File:
    """The content of one file, whatever its name."""

    content: bytearray = field(default_factory=bytearray)
    durable: int = 0
    named_at: int = 0
    """Position in the order of name changes of the one that gave it its name."""


class DiskModel:
    """A directory tree as the operations leave it, with what is not certain to survive."""

    def __init__(self, root: Path) -> None:
        self.root = str(root).rstrip("/")
        self.names: dict[str, File | None] = {}
        """Path to file, or to None for a directory: all changes applied."""
        self.changes: list[tuple[str, str, str, File | None]] = []
        """Every change of a name, in order: kind, path, target, file."""
        self.durable_changes = 0
        self._syncing: dict[tuple[int, str], int] = {}

    def apply(self, operation: Operation) -> None:
        """Let one operation take effect."""
        path, kind = operation.path, operation.kind
        if kind.startswith("unsupported") and path in self.names:
            raise AssertionError(f"{kind} on {path}")
        if kind in ("create", "touch"):
            if path not in self.names:
                self._rename("create", path, "", File())
            elif kind == "create" and (file := self.names[path]) is not None:
                del file.content[:]
                file.durable = 0
        elif kind == "write":
            if (file := self.names.get(path)) is not None:
                file.content += operation.data
        elif kind == "begin-sync":
            if (file := self.names.get(path)) is not None:
                self._syncing[operation.thread, path] = len(file.content)
        elif kind == "sync":
            self._sync(operation.thread, path)
        elif kind == "rename":
            self._rename("rename", path, operation.target, self.names.get(path))
        elif kind in ("unlink", "rmdir"):
            self._rename("unlink", path, "", None)
        elif kind == "mkdir":
            self._rename("mkdir", path, "", None)

    def _sync(self, thread: int, path: str) -> None:
        file = self.names.get(path)
        if file is None:
            self.durable_changes = len(self.changes)
        else:
            file.durable = max(file.durable, self._syncing.pop((thread, path), 0))
            self.durable_changes = max(self.durable_changes, file.named_at)

    def _rename(self, kind: str, path: str, target: str, file: File | None) -> None:
        self.changes.append((kind, path, target, file))
        _change_name(self.names, kind, path, target, file)
        if file is not None:
            file.named_at = len(self.changes)

    def write_after_power_loss(self, target: Path, rng: random.Random, *, worst: bool = False) -> None:
        """Build in `target` one directory the disk might hold now; with `worst`, all that can be lost is."""
        kept = self.durable_changes if worst else rng.randint(self.durable_changes, len(self.changes))
        names: dict[str, File | None] = {}
        for change in self.changes[:kept]:
            _change_name(names, *change)
        for path, file in names.items():
            if not path.startswith(self.root):
                continue
            place = target / path[len(self.root) :].lstrip("/")
            if file is None:
                place.mkdir(parents=True, exist_ok=True)
                continue
            length = file.durable
            if not worst and (lost := len(file.content) - file.durable) > 0:
                length += rng.choice([0, lost, rng.randint(0, lost)])
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(bytes(file.content[:length]))


def _change_name(names: dict[str, File | None], kind: str, path: str, target: str, file: File | None) -> None:
    if kind == "rename":
        names.pop(path, None)
        names[target] = file
    elif kind == "unlink":
        names.pop(path, None)
    else:
        names[path] = file


def moments(operations: Sequence[Operation], count: int, rng: random.Random) -> list[int]:
    """Positions in the recording at which to fail: half of them just before or after a sync."""
    syncs = [number for number, operation in enumerate(operations) if operation.kind == "sync"]
    picked = {rng.choice(syncs) + rng.randint(0, 1) for _ in range(count // 2)}
    while len(picked) < count:
        picked.add(rng.randrange(1, len(operations)))
    return sorted(picked)
