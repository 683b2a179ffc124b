"""Server: a service of one's own in a few lines, over the same node that ``connect-kv serve`` runs.

The node is imported when it is used: programs that are only clients import this file too.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Self

from connect_kv.config import ServerConfig, from_cluster
from connect_kv.errors import ConnectKvError
from connect_kv.framework.callbacks import CALLBACKS, Handler, Incoming, Restore, Snapshot, StoreHandler
from connect_kv.framework.cluster import Cluster
from connect_kv.framework.types import ServiceType

if TYPE_CHECKING:
    from connect_kv.server.composition import KvServer
    from connect_kv.statemachine.hosted import HostedMachine

__all__ = ["Server", "ServerHandle"]


class Server:
    """One member of `cluster` that hosts `machines`, beside the key/value service.

    Raises ConfigError for a configuration or a machine that cannot work.
    """

    def __init__(self, cluster: Cluster, machines: Mapping[str, object] | None = None) -> None:
        """`machines` by the name under which clients call them: objects of `Replicated` classes."""
        from connect_kv.server.machines import hosted

        self.config: ServerConfig = from_cluster(cluster, os.environ)
        self._machines: dict[str, HostedMachine] = {
            name: hosted(machine, f"machine {name!r}") for name, machine in (machines or {}).items()
        }

    @classmethod
    def from_callbacks(
        cls,
        cluster: Cluster,
        incoming: Incoming,
        on_read: Handler | StoreHandler,
        on_write: Handler | StoreHandler,
        service_type: ServiceType = ServiceType.IN_MEMORY,
        *,
        snapshot: Snapshot | None = None,
        restore: Restore | None = None,
    ) -> Self:
        """A service of messages: `incoming` says whether one reads or writes, the handlers answer it.

        Without `snapshot` and `restore`, an IN_MEMORY service is rebuilt from the whole log, which then
        can never be compacted. A PERSISTENT one gets its store as second argument of both handlers.
        """
        from connect_kv.statemachine.callbacks import CallbackMachine

        machine = CallbackMachine(
            incoming, on_read, on_write, service_type, snapshot=snapshot, restore=restore
        )
        if not machine.can_snapshot:
            print(
                "connect-kv: this service has no snapshot and restore: its log grows for ever",
                file=sys.stderr,
                flush=True,
            )
        return cls(cluster, {CALLBACKS: machine})

    def run(self) -> None:
        """Serve until SIGTERM or Ctrl-C. Ends the process, with one line that says why, if it cannot."""
        from connect_kv.server.process import run

        code = run(self.config, self._machines)
        if code:
            sys.exit(code)

    def start(self) -> ServerHandle:
        """Serve in a thread of its own; returns once this member listens.

        Raises what keeps it from starting: ConfigError, RefusedToStart, StorageError.
        """
        from connect_kv.server.composition import KvServer
        from connect_kv.server.first_look import look

        look(self.config)
        return ServerHandle(KvServer(self.config, self._machines))


class ServerHandle:
    """A running server. A context manager: leaving it stops the server."""

    def __init__(self, server: KvServer) -> None:
        self._server = server
        self._ended: Future[None] = Future()
        self._stop: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        started: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=(started,), name="connect-kv", daemon=True)
        self._thread.start()
        started.result()

    @property
    def client_address(self) -> str:
        """``host:port`` for clients."""
        return self._server.client_address

    def stop(self) -> None:
        """Hand leadership over, write what is queued, stop. Safe to repeat."""
        if self._loop is not None and self._stop is not None and not self._ended.done():
            self._loop.call_soon_threadsafe(self._stop.set)
        self.join()

    def join(self, timeout: float | None = None) -> None:
        """Wait until it has ended. Raises what ended it, unless that was `stop`; TimeoutError."""
        self._ended.result(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _run(self, started: Future[None]) -> None:
        import uvloop

        from connect_kv.server.process import complain

        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._serve(started))
        except BaseException as error:
            failed = error
            if not started.done():
                started.set_exception(failed)
            elif isinstance(failed, ConnectKvError):
                complain(failed)
            self._ended.set_exception(failed)
        else:
            self._ended.set_result(None)

    async def _serve(self, started: Future[None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = stop = asyncio.Event()
        await self._server.start()
        failed = self._server.failed
        failed.add_done_callback(lambda _: stop.set())
        started.set_result(None)
        await stop.wait()
        await self._server.stop()
        if failed.done():
            raise failed.result()
