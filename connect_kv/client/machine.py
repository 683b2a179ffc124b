"""Calling a replicated machine by its own methods."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from functools import lru_cache
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, cast

from connect_kv import errors
from connect_kv.client.failures import INVALID_ARGUMENT, NOT_FOUND
from connect_kv.client.limits import within
from connect_kv.client.request_channel import RequestChannel
from connect_kv.framework.exceptions import raised
from connect_kv.framework.methods import Method
from connect_kv.framework.replicated import Replicated
from connect_kv.framework.types import MethodKind
from connect_kv.framework.versions import methods_of
from connect_kv.protowire import tag, varint
from connect_kv.rpc.command_pb2 import Command, MachineCall, Result

__all__ = ["MachineClient"]

M = TypeVar("M", bound=Replicated)
P = ParamSpec("P")
R = TypeVar("R")


class MachineClient(Generic[M]):
    """One machine of the cluster, called as ``await counter.call(Counter.increment, by=5)``.

    Commands are executed once on every member, queries are linearizable reads on one.
    """

    def __init__(self, requests: RequestChannel, name: str, machine: type[M], timeout: float) -> None:
        self._requests = requests
        self._name = name
        self._machine = machine
        owner: type = machine
        self._methods = methods_of(owner)
        self._timeout = timeout

    def call(
        self, method: Callable[Concatenate[M, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, R]:
        """Call a method of the class with its own arguments; what it returns comes back typed.

        Raises what the method declared that it raises, and otherwise CommandFailed with what it raised;
        BadCall for wrong arguments or a method, version or machine the cluster does not have; nothing was
        replicated then.
        """
        return self._call(self._timeout, method, args, kwargs)

    def within(
        self, timeout: float, method: Callable[Concatenate[M, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, R]:
        """Call a method of the class within `timeout` seconds."""
        return self._call(timeout, method, args, kwargs)

    async def _call(
        self,
        timeout: float,
        method: Callable[Concatenate[M, P], R],
        args: tuple[object, ...],
        kwargs: dict[str, object],
    ) -> R:
        """One coroutine for each call: every further one would be entered twice."""
        found = self._find(method)
        arguments, seconds = found.bind(args, kwargs), within(timeout, self._timeout)
        try:
            result = await self._send(found, arguments, seconds)
        except errors.Refused as refused:
            if refused.code in (INVALID_ARGUMENT, NOT_FOUND):
                raise errors.BadCall(refused.message) from None
            raise
        except errors.CommandFailed as failed:
            declared = raised(failed, found)
            if declared is None:
                raise
            raise declared from failed
        reply = result.machine_call if found.kind is MethodKind.COMMAND else result.machine_query
        # The method's own annotation decoded it: that is the type its caller sees.
        return cast(R, found.value(reply.value))

    def _find(self, method: Callable[..., object]) -> Method:
        name = getattr(method, "__name__", None)
        found = self._methods.get(name) if name is not None else None
        if found is None:
            name = repr(method) if name is None else name
            raise errors.BadCall(f"{self._machine.__name__}.{name} is neither a command nor a query")
        return found

    def _send(self, method: Method, arguments: bytes, timeout: float) -> Awaitable[Result]:
        writes = method.kind is MethodKind.COMMAND
        request = _head(self._name, method.name, len(arguments), writes=writes) + arguments
        return self._requests.call_encoded(request, timeout, writes=writes)


_ARGUMENTS = tag(MachineCall.ARGUMENTS_FIELD_NUMBER)


@lru_cache(4096)
def _head(machine: str, method: str, size: int, *, writes: bool) -> bytes:
    """What stands before that many bytes of arguments, the last field, in a Command with a call."""
    begin = MachineCall(machine=machine, method=method).SerializeToString() + _ARGUMENTS + varint(size)
    number = Command.MACHINE_CALL_FIELD_NUMBER if writes else Command.MACHINE_QUERY_FIELD_NUMBER
    return tag(number) + varint(len(begin) + size) + begin
