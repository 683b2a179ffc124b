"""A copy of a database that is open, for another process to read: frozen, and made in an instant.

Tables are never changed once they are written, so links to them do. What is not in tables yet lies in
write-ahead logs, which are copied: a few MiB. Which of both there are stands in the MANIFEST.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from connect_kv.errors import StorageError
from connect_kv.storage import manifest, wal

_ATTEMPTS = 50
"""LevelDB may replace tables and delete what it replaced while they are linked: then what its MANIFEST says
is read anew."""
_SUFFIXES = (".ldb", ".sst")


def copy_open(path: Path, copy: Path) -> None:
    """Make `copy` hold what is in the database in `path`, where nobody may write meanwhile.

    Both lie in one file system. LevelDB itself may go on with what it does by itself. Raises StorageError,
    CorruptStorage; there may be an unfinished copy then.
    """
    for _ in range(_ATTEMPTS):
        try:
            return _copy(path, copy)
        except FileNotFoundError:
            shutil.rmtree(copy, ignore_errors=True)
        except OSError as error:
            raise StorageError(str(path), f"cannot be copied: {error.strerror}") from error
    raise StorageError(str(path), "cannot be copied: its files are replaced all the time")


def _copy(path: Path, copy: Path) -> None:
    copy.mkdir(parents=True)
    current = (path / "CURRENT").read_bytes()
    content = (path / current.decode().strip()).read_bytes()
    for table in manifest.tables(content):
        _link(path, copy, f"{table.number:06}")
    needed, _ = manifest.numbers(content)
    for name in wal.files(path):
        if int(name.removesuffix(".log")) >= needed:
            shutil.copyfile(path / name, copy / name)
    if needed and not (copy / f"{needed:06}.log").exists():
        raise FileNotFoundError(needed)
    (copy / current.decode().strip()).write_bytes(content)
    (copy / "CURRENT").write_bytes(current)


def _link(path: Path, copy: Path, name: str) -> None:
    for suffix in _SUFFIXES:
        table = path / f"{name}{suffix}"
        if table.is_symlink():  # a copy itself (`inspect.copied`), maybe in another file system
            (copy / table.name).symlink_to(table.resolve())
            return
        if table.exists():
            os.link(table, copy / table.name)
            return
    raise FileNotFoundError(name)
