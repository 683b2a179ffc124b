"""Revision: the place of one change in the history of the store."""

from __future__ import annotations

import struct
from typing import NamedTuple

_PLACE = struct.Struct(">QI")
SIZE = _PLACE.size
"""Bytes of an encoded revision."""

pack = _PLACE.pack
"""``pack(main, sub)``: the same bytes as `Revision.encode`, without the object (hot paths)."""

unpack = _PLACE.unpack
"""``unpack(place)``: the inverse, as a plain pair."""

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
    def decode(cls, place: bytes) -> Revision:
        """The inverse of `encode`."""
        return cls(*unpack(place))
