"""Simulated processes: parts of one virtual loop that can be paused and killed like real ones.

Every callback belongs to the process in whose context it was scheduled. While that process is paused
its callbacks are put aside, in order, and run when it goes on: to it, time has jumped. When it is
killed its tasks are cancelled with everything they could still reach already dead.

All that asyncio leaves to addresses in memory (it keeps tasks in sets) is numbered here, so that the
same calls give the same order in every run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any, NoReturn, TypeVar

from connect_kv.testing.simulation.clock import Handle, VirtualLoop

T = TypeVar("T")

_CURRENT: ContextVar[Process | None] = ContextVar("simulated process", default=None)
_KILL_ROUNDS = 10_000
_FEW_TASKS = 64


class StepLimit(Exception):
    """The run was told to end after so many steps."""


class Process:
    """One process on a simulated machine. Made by `SimLoop.process`."""

    def __init__(self, loop: SimLoop, name: str) -> None:
        self.name = name
        self.paused = False
        self.dead = False
        self._loop = loop
        self._frozen: list[Handle] = []
        self._tasks: list[asyncio.Task[Any]] = []
        self._many_tasks = _FEW_TASKS
        self._context = copy_context()
        self._context.run(_CURRENT.set, self)

    def spawn(self, work: Coroutine[Any, Any, T], name: str | None = None) -> asyncio.Task[T]:
        """Run it as this process."""
        return self._loop.create_task(work, name=name, context=self._context.copy())

    def call_soon(self, callback: Callable[..., object], *args: object) -> None:
        """Call it as this process, unless that dies before."""
        self._loop.call_soon(self._unless_dead, callback, args, context=self._context)

    def call_later(self, delay: float, callback: Callable[..., object], *args: object) -> None:
        """Call it as this process after so many seconds, unless that dies before."""
        self._loop.call_later(delay, self._unless_dead, callback, args, context=self._context)

    def call_now(self, callback: Callable[..., object], *args: object) -> None:
        """Call it as this process before this returns; if that stands still, when it goes on."""
        if self.paused:
            self._frozen.append(Handle((self._unless_dead, (callback, args), self._context)))
        elif not self.dead:
            self._context.run(callback, *args)

    def pause(self) -> None:
        """SIGSTOP."""
        if not self.paused:
            self.paused = True
            self._loop.paused += 1

    def resume(self) -> None:
        """SIGCONT: what came due meanwhile runs now, in order."""
        if self.paused:
            self.paused = False
            self._loop.paused -= 1
        frozen, self._frozen = self._frozen, []
        self._loop.run_again(frozen)

    async def kill(self) -> None:
        """SIGKILL. What the process could reach must be dead before; returns when nothing of it is left."""
        self.dead = True
        self.resume()
        for _ in range(_KILL_ROUNDS):
            self._forget_done()
            if not self._tasks:
                return
            for task in self._tasks:
                task.cancel()
            await asyncio.sleep(0)
        raise RuntimeError(f"{self.name} does not die: {[task.get_name() for task in self._tasks]}")

    def freeze(self, handle: Handle) -> None:
        """Put a callback aside (for the loop)."""
        self._frozen.append(handle)

    def own(self, task: asyncio.Task[Any]) -> None:
        """A task was made by it (for the loop)."""
        self._tasks.append(task)
        if len(self._tasks) > self._many_tasks:
            self._forget_done()
            self._many_tasks = 2 * len(self._tasks) + _FEW_TASKS

    def _forget_done(self) -> None:
        self._tasks = [task for task in self._tasks if not task.done()]

    def _unless_dead(self, callback: Callable[..., object], args: tuple[object, ...]) -> None:
        if not self.dead:
            callback(*args)


def current() -> Process | None:
    """The process whose code is running; None: the simulator's own."""
    return _CURRENT.get()


class SimTask(asyncio.Task[T]):
    """A task with a number instead of an address as its hash: sets of tasks have one order."""

    def __init__(self, coroutine: Any, *, loop: SimLoop, **options: Any) -> None:
        # Before the first step is scheduled, which asks for it.
        self.number = loop.next_number()
        self.process: Process | None = None
        super().__init__(coroutine, loop=loop, **options)

    def __hash__(self) -> int:
        return self.number


class SimFuture(asyncio.Future[T]):
    """A future that can be hashed alike in each run: numbered when somebody first asks, few ever do."""

    number = 0

    def __hash__(self) -> int:
        if not self.number:
            loop = self.get_loop()
            assert isinstance(loop, SimLoop)
            self.number = loop.next_number()
        return self.number


class SimLoop(VirtualLoop):
    """A virtual loop of several processes. `steps` counts the callbacks run so far."""

    def __init__(self, *, step_limit: int | None = None) -> None:
        self.steps = 0
        self.paused = 0
        """How many processes stand still."""
        self.stopped: BaseException | None = None
        self._numbers = 0
        self._step_limit = step_limit
        super().__init__()
        self.set_task_factory(_make_task)  # type: ignore[arg-type]

    def process(self, name: str) -> Process:
        """A new process."""
        return Process(self, name)

    def next_number(self) -> int:
        """Counts tasks and futures."""
        self._numbers += 1
        return self._numbers

    def end(self, reason: BaseException) -> None:
        """Leave `run_until_complete` after this turn; `stopped` says why."""
        if self.stopped is None:
            self.stopped = reason
            self.stop()

    def run_again(self, handles: list[Handle]) -> None:
        """Schedule callbacks that were put aside."""
        self._turn.extend(handles)

    def run_turn(self, handles: list[Handle]) -> None:
        """Count each and call it, unless its process stands still."""
        for handle in handles:
            if not handle:
                continue
            callback, args, context = handle
            if self.paused:
                process = context.get(_CURRENT)
                if process is not None and process.paused:
                    process.freeze(handle)
                    continue
            self.steps += 1
            if self.steps == self._step_limit:
                self.end(StepLimit())
            try:
                context.run(callback, *args)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:
                self.failed(callback, error)

    def create_future(self) -> asyncio.Future[Any]:
        """A future with a number, which orders it where addresses would."""
        return SimFuture(loop=self)

    def run_in_executor(self, executor: object, func: Any, *args: Any) -> NoReturn:  # type: ignore[override]
        """Refused: a thread answers in whichever turn it likes, and the run would not repeat.

        What members give to threads goes through a worker of the seams. Raises RuntimeError.
        """
        raise RuntimeError(
            f"{getattr(func, '__qualname__', func)} was given to a thread of its own in a simulation"
        )


def _make_task(loop: SimLoop, coroutine: Coroutine[Any, Any, T], **options: Any) -> asyncio.Task[T]:
    task: SimTask[T] = SimTask(coroutine, loop=loop, **options)
    context = options.get("context")
    process = current() if context is None else context.get(_CURRENT)
    if process is not None:
        task.process = process
        process.own(task)
    return task


async def across(process: Process, work: asyncio.Task[T]) -> T:
    """Await a task of another process; if that dies, this raises ConnectionError.

    Who waits may be cancelled although the other process stands still: the task hears of it later.
    """
    answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    def ended(task: asyncio.Task[T]) -> None:
        if task.cancelled():
            if not answer.done():
                answer.set_exception(ConnectionError(f"{process.name} is gone"))
        elif (error := task.exception()) is not None:
            if not answer.done():
                answer.set_exception(error)
        elif not answer.done():
            answer.set_result(task.result())

    work.add_done_callback(ended, context=Context())
    if process.dead:
        work.cancel()  # its kill is over, and would not find this one
    try:
        return await answer
    except asyncio.CancelledError:
        work.cancel()
        raise
