"""Replicated: a plain class whose commands run on every member, in the same order."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Self, TypeVar

from connect_kv.framework.attributes import Attributes
from connect_kv.framework.methods import MARK
from connect_kv.framework.types import Kind

F = TypeVar("F", bound=Callable[..., object])


def command(method: F) -> F:
    """Mark a method as replicated: it runs once on every member, in log order.

    It must depend on nothing but its arguments, the object's attributes and `log_time`: no clock,
    no randomness, no input or output, no order of a set. What it changes before it raises stays.
    """
    setattr(method, MARK, Kind.COMMAND)
    return method


def query(method: F) -> F:
    """Mark a method as a linearizable read: it runs on one member and changes nothing."""
    setattr(method, MARK, Kind.QUERY)
    return method


class Replicated:
    """Base of classes whose objects are replicated.

    Every attribute is part of the state, private ones too, and is stored by its annotation: in the
    class, in `__init__`, or that of the parameter it is assigned from; built-in scalars need none.
    Commands and queries of one object never run at the same time.
    """

    __slots__ = ("__attributes", "__dict__", "__log_time", "__weakref__")

    __log_time: int
    __attributes: Attributes | None

    def __new__(cls, *args: object, **kwargs: object) -> Self:
        """Set what is not part of the state, so that no `super().__init__()` is needed."""
        self = super().__new__(cls)
        self.__log_time = 0
        self.__attributes = None
        return self

    @property
    def log_time(self) -> int:
        """The only clock a command may read: nanoseconds since 1970, stamped by the leader.

        Never goes back, and is the same on every member. A date, not a duration: it jumps ahead when a
        leader's wall clock does, and stands still until a clock that was set back has caught up. What
        must last some seconds hangs on a lease.
        """
        return self.__log_time

    def snapshot(self) -> Iterable[bytes]:
        """The whole state in pieces. Override together with `restore` for a format of your own.

        Called between commands; what is returned is read before the next one runs.
        """
        return self.__stored().dump(vars(self))

    def restore(self, chunks: Iterable[bytes]) -> None:
        """Replace the whole state by what `snapshot` gave, here or on another member."""
        self.__stored().load(vars(self), chunks)

    def __stored(self) -> Attributes:
        if self.__attributes is None:
            self.__attributes = Attributes(self, Replicated)
        return self.__attributes

    @staticmethod
    def _attributes_of(machine: Replicated) -> Attributes:
        return machine.__stored()

    @staticmethod
    def _set_log_time(machine: Replicated, log_time: int) -> None:
        machine.__log_time = log_time


set_log_time = Replicated._set_log_time
"""For the host, before each call."""

attributes_of = Replicated._attributes_of
"""For the host: how the attributes of a machine without a snapshot of its own are stored."""
