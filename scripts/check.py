"""What `scripts/run --check` does: a three-node cluster is started, used, hurt and looked at again."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

import connect_kv
from connect_kv.testing.processes import DidNotStart, ProcessCluster
from counter.machine import Counter


def say(line: str) -> None:
    print(line, flush=True)


async def check(directory: Path) -> None:
    async with ProcessCluster(directory, machines={"counter": "counter.machine:Counter"}) as cluster:
        say(f"three nodes serve at {cluster.endpoints}")
        for writer in cluster.nodes:
            async with connect_kv.connect(writer.client_address) as client:
                await client.put(f"from-{writer.name}", f"written through {writer.name}")
        for reader in cluster.nodes:
            async with connect_kv.connect(reader.client_address) as client:
                found = await client.get_prefix("from-")
                expect([one.key.decode() for one in found], [f"from-{node.name}" for node in cluster.nodes])
        say("a key was written through each node, and each node reads all three")

        async with cluster.client() as client:
            counter = client.machine("counter", Counter)
            for _ in range(10):
                await counter.call(Counter.increment)
            expect(await counter.call(Counter.value), 10)
            say("the counter was incremented ten times and says 10")

            leader = await cluster.leader()
            await leader.kill()
            say(f"{leader.name}, the leader, was killed (SIGKILL)")
            await client.put("after-the-kill", "still here", timeout=20)
            expect(await counter.within(20, Counter.increment, by=5), 15)
            say("the other two took over: a put was acknowledged, and the counter says 15")

            await leader.start()
            await leader.ready()
            async with connect_kv.connect(leader.client_address) as restarted:
                found_again = await restarted.get("after-the-kill")
                expect(found_again is not None and found_again.value, b"still here")
                expect(await restarted.machine("counter", Counter).call(Counter.value), 15)
            say(f"{leader.name} was started again and has both")

        for node in cluster.nodes:
            expect(await node.stop(), 0)
        say("all three stopped cleanly")


def expect(found: object, wanted: object) -> None:
    if found != wanted:
        raise AssertionError(f"expected {wanted!r}, found {found!r}")


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="connect-kv-check-") as directory:
        try:
            asyncio.run(check(Path(directory)))
        except (AssertionError, DidNotStart, TimeoutError, connect_kv.ConnectKvError) as error:
            print(f"FAILED: {type(error).__name__}: {error}", file=sys.stderr)
            for log in sorted(Path(directory).glob("*.log")):
                print(f"--- {log.name}\n{log.read_text(errors='replace')[-3000:]}", file=sys.stderr)
            return 1
    say("OK")
    return 0


if __name__ == "__main__":
    sys.exit(main())
