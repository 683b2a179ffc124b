"""The client for programs without asyncio: the same calls, blocking, from any thread.

with connect_kv.sync.connect("127.0.0.1:2379") as client:
    client.put("greeting", "hello")
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator
from concurrent.futures import CancelledError, Future
from types import TracebackType
from typing import Concatenate, Generic, ParamSpec, Self, TypeVar

from connect_kv import errors
from connect_kv.client import client as asynchronous
from connect_kv.client.client import DEFAULT_ENDPOINTS, DEFAULT_SESSION_TTL, DEFAULT_TIMEOUT
from connect_kv.client.lease import Lease as AsyncLease
from connect_kv.client.lock import Election as AsyncElection
from connect_kv.client.lock import Held as AsyncHeld
from connect_kv.client.lock import Lock as AsyncLock
from connect_kv.client.machine import MachineClient as AsyncMachineClient
from connect_kv.client.messages import (
    Event,
)
from connect_kv.client.ranges import Text
from connect_kv.client.watch import Watch as AsyncWatch
from connect_kv.credentials import Tls
from connect_kv.framework.replicated import Replicated
from connect_kv.sync_auth import AuthClient, Blocking, blocking

__all__ = ["Client", "Election", "Held", "Lease", "Lock", "MachineClient", "Watch", "connect"]

H = TypeVar("H", bound=AsyncHeld)
M = TypeVar("M", bound=Replicated)
P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


def connect(
    endpoints: str | Iterable[str] = DEFAULT_ENDPOINTS,
    *,
    timeout: float = DEFAULT_TIMEOUT,
    session: bool = True,
    session_ttl: int = DEFAULT_SESSION_TTL,
    tls: Tls | None = None,
    user: str = "",
    password: str | None = None,
    token: str = "",
) -> Client:
    """A client for use with ``with``; the arguments are those of `connect_kv.connect`."""
    return Client(
        asynchronous.connect(
            endpoints,
            timeout=timeout,
            session=session,
            session_ttl=session_ttl,
            tls=tls,
            user=user,
            password=password,
            token=token,
        )
    )


class _LoopThread:
    """An event loop on a thread of its own."""

    def __init__(self) -> None:
        self._started: Future[None] = Future()
        self._lock = threading.Lock()
        self._accepting = True
        self._thread = threading.Thread(target=self._run, name="connect-kv client", daemon=True)
        self._thread.start()
        self._started.result()

    @property
    def alive(self) -> bool:
        """Whether it runs in this process: a fork has no threads."""
        return self._thread.is_alive()

    def run(self, coroutine: Coroutine[object, object, T]) -> T:
        """Run it there and wait here. An interrupt here cancels it there."""
        # Never behind `stop` in the loop's queue: nobody would run it there, or say so.
        with self._lock:
            if not self._accepting:
                coroutine.close()
                raise errors.ClientNotOpen("the client was closed")
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except CancelledError:
            raise errors.ClientNotOpen("the client was closed") from None
        finally:
            future.cancel()

    def stop(self) -> None:
        """End all that runs there, and the thread."""
        with self._lock:
            self._accepting = False
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def _run(self) -> None:
        asyncio.run(self._until_stopped())

    async def _until_stopped(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(_report)
        self._stopping = asyncio.Event()
        self._started.set_result(None)
        await self._stopping.wait()


def _report(loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    """As usual, but for what is nothing: gRPC wakes every loop of a process, and all but one read in vain."""
    if not isinstance(context.get("exception"), BlockingIOError):
        loop.default_exception_handler(context)


class _SharedLoop:
    """The loop of all blocking clients of a process; its thread lives while one of them is open.

    One loop for all, because gRPC's asyncio side wakes each loop of a process for the events of every other.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: _LoopThread | None = None
        self._users = 0

    def acquire(self) -> _LoopThread:
        """For one more client, which must release it."""
        with self._lock:
            if self._thread is None or not self._thread.alive:
                self._thread, self._users = _LoopThread(), 0
            self._users += 1
            return self._thread

    def release(self, thread: _LoopThread) -> None:
        """One client is closed; with the last one the thread ends."""
        with self._lock:
            if thread is not self._thread:  # of the process before a fork
                return
            self._users -= 1
            if self._users == 0:
                self._thread = None
                thread.stop()


_SHARED = _SharedLoop()


class Client(Blocking[asynchronous.Client]):
    """Any number of threads may use it at once; their calls travel together. See the async Client."""

    def __init__(self, client: asynchronous.Client) -> None:
        # Without `Blocking`: a client that held its own method would live until garbage is collected.
        self._asynchronous = client
        self._lock = threading.Lock()
        self._thread: _LoopThread | None = None
        self._entered = 0
        """How many ``with`` are in it."""

    def open(self) -> Self:
        """Make it ready for calls; it connects when the first one is made. Safe to repeat.

        ``with`` does this, and `close` at its end.
        """
        with self._lock:
            if self._thread is None:
                thread = _SHARED.acquire()
                try:
                    thread.run(self._asynchronous.open())
                except BaseException:
                    _SHARED.release(thread)
                    raise
                self._thread = thread
        return self

    def close(self) -> None:
        """End the session and all connections; calls that wait fail. Safe to repeat, and to open again."""
        with self._lock:
            thread, self._thread = self._thread, None
            if thread is not None:
                try:
                    thread.run(self._asynchronous.close())
                finally:
                    _SHARED.release(thread)

    def __enter__(self) -> Self:
        """Open it. Entered several times, it is closed when the last body ends."""
        self.open()
        with self._lock:
            self._entered += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._entered -= 1
            last = self._entered <= 0
        if last:
            self.close()

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Addresses of the members it knows."""
        return self._asynchronous.endpoints

    put = blocking(asynchronous.Client.put)
    get = blocking(asynchronous.Client.get)
    get_prefix = blocking(asynchronous.Client.get_prefix)
    range = blocking(asynchronous.Client.range)
    delete = blocking(asynchronous.Client.delete)
    transaction = blocking(asynchronous.Client.transaction)
    compact = blocking(asynchronous.Client.compact)
    grant_lease = blocking(asynchronous.Client.grant_lease)
    renew_lease = blocking(asynchronous.Client.renew_lease)
    revoke_lease = blocking(asynchronous.Client.revoke_lease)
    lease_time_to_live = blocking(asynchronous.Client.lease_time_to_live)
    leases = blocking(asynchronous.Client.leases)
    call_json = blocking(asynchronous.Client.call_json)
    describe_machines = blocking(asynchronous.Client.describe_machines)
    machine_status = blocking(asynchronous.Client.machine_status)
    skip_command = blocking(asynchronous.Client.skip_command)
    retire_machine = blocking(asynchronous.Client.retire_machine)
    host_machine = blocking(asynchronous.Client.host_machine)
    status = blocking(asynchronous.Client.status)
    members = blocking(asynchronous.Client.members)

    def watch(
        self,
        key: Text,
        range_end: Text = b"",
        *,
        prefix: bool = False,
        start_revision: int = 0,
        prev_kv: bool = False,
        puts: bool = True,
        deletes: bool = True,
    ) -> Watch:
        """Changes as an iterator that blocks; in force when this returns."""
        watch = self._asynchronous.watch(
            key,
            range_end,
            prefix=prefix,
            start_revision=start_revision,
            prev_kv=prev_kv,
            puts=puts,
            deletes=deletes,
        )
        self._run(watch.__aenter__())
        return Watch(watch, self._run)

    def lease(self, ttl: int, *, id: int = 0, timeout: float | None = None) -> Lease:
        """A lease that is renewed until it is revoked (the end of ``with``) or the client closes."""

        async def grant() -> AsyncLease:
            return await self._asynchronous.lease(ttl, id=id, timeout=timeout)

        return Lease(self._run(grant()), self._run)

    def keep_lease_alive(self, id: int, ttl: int) -> Lease:
        """Renew a lease granted elsewhere from now on; `ttl` is what it was granted."""
        return Lease(self._run(self._asynchronous.keep_lease_alive(id, ttl)), self._run)

    def lock(self, name: Text, *, ttl: int = 10, note: Text = b"") -> Lock:
        """``with client.lock("name") as lock``: waits for the lock, and gives it back at the end.

        `note`, such as a host and a process, tells others who it is: see `Lock.queue`.
        """
        return Lock(self._asynchronous.lock(name, ttl=ttl, note=note), self._run)

    def election(self, name: Text, value: Text = b"", *, ttl: int = 10) -> Election:
        """``with client.election("name", "me") as election``: waits until this candidate leads."""
        return Election(self._asynchronous.election(name, value, ttl=ttl), self._run)

    def machine(self, name: str, machine: type[M]) -> MachineClient[M]:
        """A replicated machine of that class, to be called by its methods."""
        return MachineClient(self._asynchronous.machine(name, machine), self._run)

    @property
    def auth(self) -> AuthClient:
        """Users, roles and their rights."""
        if self._thread is None:
            raise errors.ClientNotOpen("the client is not open")
        return AuthClient(self._asynchronous.auth, self._run)

    def _run(self, coroutine: Coroutine[object, object, T]) -> T:
        if self._thread is None:
            coroutine.close()
            raise errors.ClientNotOpen(
                "the client is not open: use it as `with connect(...) as client`, or call open()"
            )
        return self._thread.run(coroutine)


class Watch(Blocking[AsyncWatch]):
    """One watch: a blocking iterator of events. Close it, or use it with ``with``."""

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        async def following() -> Event | None:
            return await anext(self._asynchronous, None)

        event = self._run(following())
        if event is None:
            raise StopIteration
        return event

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    close = blocking(AsyncWatch.close)


class Lease(Blocking[AsyncLease]):
    """A lease held by this client; with ``with`` it is revoked at the end."""

    @property
    def id(self) -> int:
        """The number of the lease, for `put(lease=...)`."""
        return self._asynchronous.id

    @property
    def ttl(self) -> int:
        """Seconds it lives after a renewal."""
        return self._asynchronous.ttl

    @property
    def alive(self) -> bool:
        """Whether the cluster has certainly not let it expire."""

        async def alive() -> bool:
            return self._asynchronous.alive

        return self._run(alive())

    revoke = blocking(AsyncLease.revoke)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.revoke()


class Held(Blocking[H], Generic[H]):
    """A lock or a leadership: won by entering, given back by leaving."""

    @property
    def key(self) -> bytes:
        """The key that stands for it."""
        return self._asynchronous.key

    @property
    def revision(self) -> int:
        """Larger for every later holder: hand it to what is protected (a fencing token)."""
        return self._asynchronous.revision

    @property
    def held(self) -> bool:
        """Whether it certainly is still ours."""

        async def held() -> bool:
            return self._asynchronous.held

        return self._run(held())

    def __enter__(self) -> Self:
        self._run(self._asynchronous.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run(self._asynchronous.__aexit__(None, None, None))


class Lock(Held[AsyncLock]):
    """One holder at a time under a name, in the order of asking."""

    queue = blocking(AsyncLock.queue)


class Election(Held[AsyncElection]):
    """A candidacy, and then a leadership."""

    proclaim = blocking(AsyncElection.proclaim)
    leader = blocking(AsyncElection.leader)


class MachineClient(Blocking[AsyncMachineClient[M]], Generic[M]):
    """One machine of the cluster, called as ``counter.call(Counter.increment, by=5)``."""

    def call(self, method: Callable[Concatenate[M, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a method of the class with its own arguments; what it returns comes back typed."""
        return self._run(self._asynchronous.call(method, *args, **kwargs))

    def within(
        self, timeout: float, method: Callable[Concatenate[M, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Call a method of the class within `timeout` seconds."""
        return self._run(self._asynchronous.within(timeout, method, *args, **kwargs))
