"""Machines that were retired: replicated, so that every member refuses their calls from the same entry on."""

from __future__ import annotations

from connect_kv.errors import CorruptStorage
from connect_kv.kv.layout import Changes
from connect_kv.storage import codec
from connect_kv.storage.engine import Reader

_RETIRED_KIND = 1


class RetiredMachines:
    """Used by apply; names."""

    def __init__(self) -> None:
        self._names: set[str] = set()

    def __contains__(self, name: object) -> bool:
        return name in self._names

    @property
    def names(self) -> list[str]:
        """All of them, sorted."""
        return sorted(self._names)

    def load(self, reader: Reader) -> None:
        """Replace everything by what is stored. Raises CorruptStorage."""
        start, stop = bytes((codec.MACHINES, _RETIRED_KIND)), bytes((codec.MACHINES, _RETIRED_KIND + 1))
        try:
            self._names = {key[2:].decode() for key, _ in reader.iterate(start, stop)}
        except UnicodeDecodeError as error:
            raise CorruptStorage("state", f"retired machines: {error}") from error

    def retire(self, name: str, changes: Changes) -> None:
        """From now on its calls are refused."""
        self._names.add(name)
        changes.put(_key(name), b"")

    def host(self, name: str, changes: Changes) -> None:
        """From now on they are not."""
        self._names.discard(name)
        changes.delete(_key(name))


def _key(name: str) -> bytes:
    return bytes((codec.MACHINES, _RETIRED_KIND)) + name.encode()
