"""A node that forgets to sync its log: what the power loss test must catch."""

from connect_kv.cli.main import main
from connect_kv.storage.leveldb import LevelDbEngine


def write_unsynced(self: LevelDbEngine, batch: object, sync: bool) -> None:
    synced_write(self, batch, sync and self.path.name != "log")


synced_write = LevelDbEngine.write

if __name__ == "__main__":
    LevelDbEngine.write = write_unsynced  # type: ignore[method-assign]  # the planted bug
    main()
