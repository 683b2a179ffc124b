"""Writes the first format of backups, which is only read now: for tests of what reads it."""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import asdict

from connect_kv.backup.file import MAGIC, BackupHead

_BLOCK = 512
_FORMAT = 1
_LENGTH = struct.Struct(">I")


class BackupWriter:
    """Makes the file: `start`, `piece` as often as there are pieces, `end`, `digest`, in this order."""

    def __init__(self, head: BackupHead) -> None:
        self._head = head
        self._digest = hashlib.sha256()
        self._size = 0

    def start(self) -> bytes:
        """What comes before all pieces."""
        text = json.dumps({"format": _FORMAT, **asdict(self._head)}, sort_keys=True).encode()
        return self._noted(MAGIC + _LENGTH.pack(len(text)) + text)

    def piece(self, data: bytes) -> bytes:
        """One piece, as it stands in the file."""
        return self._noted(_LENGTH.pack(len(data)) + data)

    def end(self) -> bytes:
        """What comes after all pieces."""
        return self._noted(bytes(_LENGTH.size + -(self._size + _LENGTH.size) % _BLOCK))

    def digest(self) -> bytes:
        """The last bytes of the file."""
        return self._digest.digest()

    def _noted(self, part: bytes) -> bytes:
        self._digest.update(part)
        self._size += len(part)
        return part
