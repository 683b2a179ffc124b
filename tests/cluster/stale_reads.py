"""A node that reads without asking the others whether it still leads: what chaos must catch."""

import runpy

from connect_kv.node.node import RaftNode


async def read_barrier(self: object) -> int:
    return 0


if __name__ == "__main__":
    RaftNode.read_barrier = read_barrier  # type: ignore[method-assign]  # the planted bug
    runpy.run_module("chaos.faulty_machine", run_name="__main__")
