"""Single calls, outside a session: which may be sent again, and when.

A read may always be repeated. A write only when the failure says for certain that nothing was
done; otherwise the caller is told that the outcome is unknown.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from connect_kv import errors
from connect_kv.client.endpoints import Endpoint, Endpoints
from connect_kv.client.failures import CallFailed, Fate, fate, from_rpc

if TYPE_CHECKING:
    from connect_kv.client.stubs import Stubs

T = TypeVar("T")
Call: TypeAlias = "Callable[[Stubs, float], Awaitable[T]]"
"""Makes the call on a member's stubs with so many seconds to answer."""


async def call(endpoints: Endpoints, make: Call[T], *, timeout: float, writes: bool) -> T:
    """Make a call on one member after another until one answers or `timeout` seconds are over.

    Raises Unavailable (nothing was done), OutcomeUnknown (only if it `writes`), or what was answered.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    last: errors.ConnectKvError | None = None
    while True:
        endpoint, wait = endpoints.pick(loop.time())
        if loop.time() + wait >= deadline:
            raise last or errors.Unavailable(f"no member answered within {timeout:g} s")
        if wait > 0:
            await asyncio.sleep(wait)
        try:
            answer = await make(endpoint.stubs, deadline - loop.time())
        except TimeoutError:
            raise last or errors.Unavailable(f"{endpoint.address} did not answer in time") from None
        except CallFailed as error:
            last = _named(endpoint, from_rpc(error, writes=writes))
            if not _may_repeat(error, writes):
                raise last from error
            endpoints.failed(endpoint, loop.time())
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
        raise _named(endpoint, from_rpc(error, writes=False)) from error


def _named(endpoint: Endpoint, error: errors.ConnectKvError) -> errors.ConnectKvError:
    """With the member's address, where it is about reaching it."""
    if isinstance(error, errors.Unavailable | errors.OutcomeUnknown):
        return type(error)(f"{endpoint.address}: {error}")
    return error


def _may_repeat(error: CallFailed, writes: bool) -> bool:
    what = fate(error.code, error.text)
    return what is Fate.NOTHING_DONE or (what is Fate.UNKNOWN and not writes)
