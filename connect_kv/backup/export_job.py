"""A backup is made by a process of its own, from a frozen copy of the state: to standard output.

The interpreter runs one thread at a time, so a thread that reads every key would take half of the loop's time
for as long as it takes. ``python -m connect_kv.backup.export_job`` takes what it needs as JSON, and writes a
line of JSON with what is to come, then the file with its digest.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from connect_kv.backup.etcd_format import buckets
from connect_kv.backup.file import BackupHead
from connect_kv.errors import StorageError
from connect_kv.etcd_files import writer
from connect_kv.storage.bulk import ReopeningReader
from connect_kv.storage.engine import Reader

NICENESS = 10
"""The member comes first."""
_WRITE_BYTES = 256 << 10


def layout_of(view: Reader, head: BackupHead) -> writer.Layout:
    """How the file of this state will lie."""
    found = None
    for planned in writer.plan(buckets(view, head, exact=False)):
        found = planned or found
    assert found is not None
    return found


def pages_of(view: Reader, head: BackupHead, layout: writer.Layout) -> Iterator[bytes]:
    """The file, and its digest at the end."""
    digest = hashlib.sha256()
    waiting: list[bytes] = []
    size = 0
    for page in writer.write(layout, buckets(view, head, exact=True)):
        waiting.append(page)
        size += len(page)
        if size >= _WRITE_BYTES:
            whole = b"".join(waiting)
            digest.update(whole)
            yield whole
            waiting, size = [], 0
    whole = b"".join(waiting)
    digest.update(whole)
    yield whole
    yield digest.digest()


def main() -> None:
    """See above. Ends with 1 if the state cannot be read."""
    with contextlib.suppress(PermissionError):  # the unit for systemd does not let anybody ask
        os.nice(NICENESS)
    job = json.loads(sys.stdin.buffer.readline())
    view, head = ReopeningReader(Path(job["directory"])), BackupHead(**job["head"])
    out: BinaryIO = sys.stdout.buffer
    try:
        layout = layout_of(view, head)
        out.write(json.dumps({"size": layout.size}).encode() + b"\n")
        for piece in pages_of(view, head, layout):
            out.write(piece)
        out.flush()
    except StorageError as error:
        raise SystemExit(f"connect-kv: {error}") from error
    except BrokenPipeError:
        os._exit(1)  # whoever asked has gone


if __name__ == "__main__":
    main()
