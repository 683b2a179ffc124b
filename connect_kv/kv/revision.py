"""Revision: the number of one change in the history of the store."""

from __future__ import annotations

import struct
from typing import NamedTuple

_REVISION = struct.Struct(">QI")
SIZE = _REVISION.size
"""Bytes of an encoded revision."""

pack = _REVISION.pack
"""``pack(main, sub)``: the same bytes as `Revision.encode`, without the object (hot paths)."""

unpack = _REVISION.unpack
"""``unpack(revision_key)``: the inverse, as a plain pair."""

LAST_SUB = 0xFFFFFFFF


class Revision(NamedTuple):
    """`main` counts the writing requests, `sub` the changes within one of them.

    A transaction that puts ``a`` and deletes ``b`` as the fifth write makes the changes 6.0 and 6.1
    (a fresh store stands at revision 1). Only `main` is ever shown to clients.
    """

    main: int
    sub: int = 0

    def encode(self) -> bytes:
        """Twelve bytes that sort like the revisions."""
        return pack(self.main, self.sub)

    @classmethod
    def decode(cls, revision_key: bytes) -> Revision:
        """The inverse of `encode`."""
        return cls(*unpack(revision_key))
