"""What tests of single parts of a node are made with."""

import asyncio
from collections.abc import Sequence

from connect_kv.node.config import NodeConfig
from connect_kv.raft.config import RaftConfig
from connect_kv.raft.types import Entry, EntryId, EntryKind


def config(**settings: int) -> NodeConfig:
    return NodeConfig(raft=RaftConfig(node_id=1), **settings)  # type: ignore[arg-type]  # none is bytes


def future() -> asyncio.Future[Sequence[int]]:
    return asyncio.get_running_loop().create_future()


def entry(term: int, index: int) -> Entry:
    return Entry(EntryId(term, index), EntryKind.COMMAND, b"")
