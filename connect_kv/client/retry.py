"""Single calls, outside a session: which may be sent again, and when.

A read may always be repeated. A write only when the failure says for certain that nothing was
done; otherwise the caller is told that the outcome is unknown.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from connect_kv import errors
from connect_kv.client import trouble
from connect_kv.client.endpoints import Endpoint, Endpoints
from connect_kv.client.failures import DEADLINE_EXCEEDED, SUSPENDED, CallFailed, Fate, fate, from_rpc
from connect_kv.client.limits import within

if TYPE_CHECKING:
    from connect_kv.client.stubs import Stubs, Unary

Request = TypeVar("Request")
Response = TypeVar("Response")
T = TypeVar("T")
_EARLY = 0.05
"""Seconds by which gRPC's clock may be ahead of the loop's."""
Call: TypeAlias = "Callable[[Stubs, float], Awaitable[T]]"
"""Makes the call on a member's stubs with so many seconds to answer."""


async def call(endpoints: Endpoints, make: Call[T], *, timeout: float, writes: bool) -> T:
    """Make a call on one member after another until one answers or `timeout` seconds are over.

    Raises Unavailable (nothing was done), OutcomeUnknown (only if it `writes`), or what was answered.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    looking = endpoints.look_before(deadline, timeout)
    try:
        return await _until(deadline, endpoints, make, timeout, writes)
    finally:
        looking.cancel()


class UnaryCalls:
    """Makes calls of one request and one response, on whichever member answers."""

    def __init__(self, endpoints: Endpoints, timeout: float) -> None:
        """`timeout`: seconds a call may take that names no time of its own."""
        self._endpoints = endpoints
        self._timeout = timeout

    async def ask(
        self,
        method: Callable[[Stubs], Unary[Request, Response]],
        request: Request,
        timeout: float | None,
        *,
        writes: bool,
        at: str | None = None,
    ) -> Response:
        """Ask one member after another, as `call` does; or exactly the one at an address, once: a read."""
        seconds = within(timeout, self._timeout)

        async def make(stubs: Stubs, left: float) -> Response:
            return await method(stubs)(request, timeout=left)

        if at is not None:
            return await call_one(self._endpoints.find(at), make, timeout=seconds)
        return await call(self._endpoints, make, timeout=seconds, writes=writes)


async def _until(deadline: float, endpoints: Endpoints, make: Call[T], timeout: float, writes: bool) -> T:
    loop = asyncio.get_running_loop()
    suspended: set[str] = set()
    while True:
        endpoint, wait = endpoints.pick(loop.time())
        if loop.time() + wait >= deadline:
            raise errors.Unavailable(endpoints.account() or f"no member answered within {timeout:g} s")
        if wait > 0:
            await asyncio.sleep(wait)
        try:
            answer = await make(endpoint.stubs, deadline - loop.time())
        except TimeoutError:
            raise errors.Unavailable(_in_vain(endpoints, endpoint)) from None
        except CallFailed as error:
            if error.code == DEADLINE_EXCEEDED and loop.time() >= deadline - _EARLY:
                text = _in_vain(endpoints, endpoint)
                raise (errors.OutcomeUnknown(text) if writes else errors.Unavailable(text)) from error
            if not _may_repeat(error, writes):
                raise _named(endpoint, error, writes) from error
            if SUSPENDED.match(error.text):
                # The member is well, only that machine is not there; if it is nowhere, waiting does not help.
                suspended.add(endpoint.address)
                if len(suspended) == len(endpoints.all):
                    raise _named(endpoint, error, writes) from error
                endpoints.turn_from(endpoint)
                continue
            endpoints.failed(endpoint, loop.time(), trouble.of(error))
        else:
            endpoints.worked(endpoint)
            return answer


async def call_one(endpoint: Endpoint, make: Call[T], *, timeout: float) -> T:
    """Ask exactly this member, once; a read."""
    if timeout <= 0:
        raise errors.Unavailable(f"{endpoint.address}: no time was given to answer")
    try:
        return await make(endpoint.stubs, timeout)
    except CallFailed as error:
        raise _named(endpoint, error, writes=False) from error


def _in_vain(endpoints: Endpoints, endpoint: Endpoint) -> str:
    if endpoint.trouble:
        return endpoints.account()
    return f"{endpoint.address} did not answer in time: {endpoints.account() or 'no reason is known'}"


def _named(endpoint: Endpoint, error: CallFailed, writes: bool) -> errors.ConnectKvError:
    """The error to raise; with the member's address, where it is about reaching it."""
    what = from_rpc(error, writes=writes)
    words = trouble.account([(endpoint.address, trouble.of(error))])
    if isinstance(what, errors.Unavailable | errors.OutcomeUnknown):
        return type(what)(words)
    if trouble.of(error) == trouble.NOT_FOR_CLIENTS:
        return errors.Refused(error.code, words)
    return what


def _may_repeat(error: CallFailed, writes: bool) -> bool:
    what = fate(error.code, error.text)
    return what is Fate.NOTHING_DONE or (what is Fate.UNKNOWN and not writes)
