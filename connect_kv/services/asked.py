"""Requests that come together: what a service is given to answer many calls at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, TypeVar

from connect_kv.services.caller import Caller

Request_co = TypeVar("Request_co", covariant=True)


class Asked(Protocol[Request_co]):
    """One request of many, and where its answer goes. Exactly one of the three answers it, then or later."""

    encoded: bytes
    """The request as it came: nothing is known of it."""

    @property
    def request(self) -> Request_co:
        """What is asked, decoded when it is first looked at. Raises Refused where that is not possible."""

    @property
    def caller(self) -> Caller:
        """Who asks."""

    def gone(self) -> bool:
        """Whether nobody waits for the answer any more."""

    def answer(self, response: bytes) -> None:
        """Answer the call with an encoded response."""

    def fail(self, error: Exception) -> None:
        """Fail the call with what it would raise if it were asked alone."""

    def alone(self) -> None:
        """It needs more than others may wait for: it is asked by itself, as a call alone, in a task."""


Many = Callable[[Iterable[Asked[Any]]], None]
"""Answers requests of one method, each once, then or later. It takes them one by one and as far as they come:
the iterator ends where the loop has been held for long enough, and what is left comes in a later turn. It
gives the answers that the method itself would give."""


def all_failed(asked: Iterable[Asked[Any]], error: Exception) -> Iterator[None]:
    """Tell each of them, one a step."""
    for one in asked:
        one.fail(error)
        yield
