"""The loop's time for puts and gets that come together, beside the same calls one by one, on one node.

``python -m benchmarks.batches``: no wire, so it is what everything behind it costs: router, services, node,
apply. In turns, medians, processor time of the loop's thread; what the threads of the disk take is not in it.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import pstats
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import uvloop

from connect_kv.config import InitialMember, ServerConfig
from connect_kv.frontend.grpc.router import Metadata, MethodRoute
from connect_kv.rpc.kv_pb2 import PutRequest, RangeRequest
from connect_kv.server.composition import KvServer
from connect_kv.testing.ports import free_ports

VALUE = b"v" * 256


class Shared:
    """What calls with the same header block share."""

    __slots__ = ("kept",)

    def __init__(self) -> None:
        self.kept: object | None = None


class Call:
    """A call without a wire."""

    __slots__ = ("_done", "_shared", "answer", "message")

    metadata: Metadata = ()

    def __init__(self, message: bytes, shared: Shared, done: Callable[[], None]) -> None:
        self.message = message
        self.answer: bytes | None = None
        self._shared = shared
        self._done = done

    @property
    def kept(self) -> object | None:
        """See `UnaryCall`."""
        return self._shared.kept

    @kept.setter
    def kept(self, value: object | None) -> None:
        self._shared.kept = value

    def gone(self) -> bool:
        """Never before it is answered."""
        return self.answer is not None

    def reply(self, message: bytes) -> None:
        """Keep the response, to be looked at."""
        self.answer = message
        self._done()

    def fail(self, code: int, text: str, trailing: Metadata = ()) -> None:
        """Not expected."""
        raise AssertionError(f"{code}: {text}")


async def together(route: MethodRoute, messages: Sequence[bytes]) -> None:
    """Hand them over as one turn's calls; return once all are answered."""
    assert route.batch is not None
    left = len(messages)
    ended = asyncio.Event()

    def done() -> None:
        nonlocal left
        left -= 1
        if not left:
            ended.set()

    shared = Shared()
    route.batch([Call(message, shared, done) for message in messages])
    await ended.wait()


async def one_by_one(route: MethodRoute, messages: Sequence[bytes]) -> None:
    """The same, each call in a task."""
    await asyncio.gather(*(asyncio.create_task(route.unary(message, ())) for message in messages))  # type: ignore[arg-type]


Way = Callable[[MethodRoute, Sequence[bytes]], Awaitable[None]]


async def measure(way: Way, route: MethodRoute, messages: Sequence[bytes], in_flight: int) -> float:
    """Microseconds of the loop's thread for each."""
    before = time.thread_time()
    for start in range(0, len(messages), in_flight):
        await way(route, messages[start : start + in_flight])
    return (time.thread_time() - before) / len(messages) * 1e6


async def run(arguments: argparse.Namespace) -> None:
    """Measure and print."""
    (port,) = free_ports(1)
    with tempfile.TemporaryDirectory() as place:
        config = ServerConfig(
            name="n1",
            data_dir=Path(place) / "n1",
            listen_client="127.0.0.1:0",
            listen_peer=f"127.0.0.1:{port}",
            listen_http="127.0.0.1:0",
            initial_cluster=(InitialMember(name="n1", peer_address=f"127.0.0.1:{port}"),),
        )
        server = KvServer(config)
        await server.start()
        try:
            await server.services.opening.opened()
            router = server.services.router
            keys = [b"k%07d" % number for number in range(arguments.keys)]
            work = {
                "put": ("Put", [PutRequest(key=key, value=VALUE).SerializeToString() for key in keys]),
                "get": ("Range", [RangeRequest(key=key).SerializeToString() for key in keys]),
            }
            ways: dict[str, Way] = {"together": together, "one by one": one_by_one}
            for name, (method, messages) in work.items():
                route = router.route(f"/etcdserverpb.KV/{method}")
                if arguments.profile:
                    profile = cProfile.Profile()
                    profile.enable()
                    await measure(together, route, messages, arguments.in_flight)
                    profile.disable()
                    pstats.Stats(profile).sort_stats("tottime").print_stats(40)
                    continue
                for in_flight in arguments.in_flight_list or [1, 100, arguments.in_flight]:
                    some = messages[: max(500, min(len(messages), in_flight * 50))]
                    found: dict[str, list[float]] = {way: [] for way in ways}
                    for _ in range(arguments.rounds):
                        for way, how in ways.items():
                            found[way].append(await measure(how, route, some, in_flight))
                    told = ", ".join(f"{way} {statistics.median(each):6.1f}" for way, each in found.items())
                    print(f"{name}, {in_flight:5} at once: us each: {told}")
        finally:
            await server.stop()


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=10_000)
    parser.add_argument("--in-flight", type=int, default=1000, help="calls that come in one turn")
    parser.add_argument("--in-flight-list", type=int, nargs="*")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--profile", action="store_true", help="of those that come together")
    uvloop.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
