"""What a put costs one member without a wire: ``python -m benchmarks.put_calls [--profile]``, by each of two
environments in turn (with PYTHONSAFEPATH=1, as a file, for that of another version).

Puts come twenty in a turn of the loop, as the door hands them over. Prints the processor time of the loop's
thread for each; with ``--profile`` how many Python functions were called for each, which no other load of the
machine changes.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import pstats
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from connect_kv.config import InitialMember, ServerConfig
from connect_kv.frontend.grpc.router import MethodRoute
from connect_kv.rpc.kv_pb2 import PutRequest
from connect_kv.server.composition import KvServer

WIDTH = 20
WARM_TURNS = 50


class Put:
    """A call as a server gives it to the router."""

    def __init__(self, number: int, answered: Callable[[], None]) -> None:
        self.message = PutRequest(key=b"%d" % number, value=bytes(256)).SerializeToString()
        self.metadata = ()
        self.kept: object | None = None
        self._answered = answered

    def gone(self) -> bool:
        """Somebody waits for it."""
        return False

    def reply(self, message: bytes) -> None:
        """It was done."""
        self._answered()

    def fail(self, code: int, text: str, trailing: object = ()) -> None:
        """None may fail."""
        raise SystemExit(f"a put failed: {text}")


async def turn(route: MethodRoute, first: int) -> None:
    """Some puts, until all are answered."""
    left, done = WIDTH, asyncio.get_running_loop().create_future()

    def answered() -> None:
        nonlocal left
        left -= 1
        if not left:
            done.set_result(None)

    assert route.batch is not None
    route.batch([Put(first + number, answered) for number in range(WIDTH)])
    await done


def config(directory: Path) -> ServerConfig:
    """Of a lone member on free ports."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        peer = f"127.0.0.1:{free.getsockname()[1]}"
    return ServerConfig(
        name="n1",
        data_dir=directory / "n1",
        listen_client="127.0.0.1:0",
        listen_peer=peer,
        listen_http="127.0.0.1:0",
        initial_cluster=(InitialMember(name="n1", peer_address=peer),),
    )


async def measure(turns: int, profile: bool) -> None:
    """Print one number for each put."""
    with tempfile.TemporaryDirectory(prefix="connect-kv-put-") as directory:
        server = KvServer(config(Path(directory)))
        await server.start()
        await server.node.read_barrier()
        route = server.services.router.route("/etcdserverpb.KV/Put")
        for number in range(WARM_TURNS):
            await turn(route, number * WIDTH)
        counter = cProfile.Profile()
        if profile:
            counter.enable()
        began = time.thread_time()
        for number in range(turns):
            await turn(route, number * WIDTH)
        took = time.thread_time() - began
        counter.disable()
        puts = turns * WIDTH
        if profile:
            calls: int = pstats.Stats(counter).total_calls  # type: ignore[attr-defined]  # the stubs lack it
            print(f"{calls / puts:.1f} calls of functions a put")
        else:
            print(f"{took / puts * 1e6:.1f} us a put")
        await server.stop()


def main() -> None:
    """As the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=200)
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    asyncio.run(measure(arguments.turns, arguments.profile))


if __name__ == "__main__":
    main()
