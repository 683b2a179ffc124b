"""Replicated: a plain class whose commands run on every member, in the same order."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Self, TypeVar, overload

from connect_kv.errors import ConfigError
from connect_kv.framework.types import MARK, Mark, MethodKind

if TYPE_CHECKING:
    from connect_kv.framework.attributes import Attributes

__all__ = ["Replicated", "before", "command", "query"]

T = TypeVar("T", bound="Replicated")
F = TypeVar("F", bound=Callable[..., object])

VERSION = "__connect_kv_version__"


@overload
def command(method: F, /) -> F: ...


@overload
def command(
    *, since: int = 1, until: int | None = None, raises: tuple[type[Exception], ...] = ()
) -> Callable[[F], F]: ...


def command(
    method: F | None = None,
    /,
    *,
    since: int = 1,
    until: int | None = None,
    raises: tuple[type[Exception], ...] = (),
) -> F | Callable[[F], F]:
    """Mark a method as replicated: it runs once on every member, in log order.

    It must depend on nothing but its arguments, the object's attributes and `log_time`: no clock,
    no randomness, no input or output, no order of a set. What it changes before it raises stays.

    It belongs to the versions ``[since, until)`` of its class. Exceptions of `raises` reach typed callers
    as they are; what they hold (`args` and attributes) must be plain data. Others are CommandFailed.
    """
    mark = Mark(MethodKind.COMMAND, since=since, until=until, raises=raises)
    return _marked(mark) if method is None else _marked(mark)(method)


@overload
def query(method: F, /) -> F: ...


@overload
def query(
    *, since: int = 1, until: int | None = None, raises: tuple[type[Exception], ...] = ()
) -> Callable[[F], F]: ...


def query(
    method: F | None = None,
    /,
    *,
    since: int = 1,
    until: int | None = None,
    raises: tuple[type[Exception], ...] = (),
) -> F | Callable[[F], F]:
    """Mark a method as a linearizable read: it runs on one member and changes nothing.

    `since`, `until` and `raises` as of `command`.
    """
    mark = Mark(MethodKind.QUERY, since=since, until=until, raises=raises)
    return _marked(mark) if method is None else _marked(mark)(method)


def before(version: int, of: Callable[..., object]) -> Callable[[F], F]:
    """Mark a method as the body that the command or query `of` had before that version of the class.

    It keeps what was acknowledged as it was: calls that were made under an older version are run by it
    at every replay. Its own name is seen by nobody, its parameters may be others than today's.
    """
    mark = getattr(of, MARK, None)
    if not isinstance(mark, Mark):
        raise ConfigError(f"before({version}, ...): {of!r} is neither a command nor a query")
    return _marked(Mark(mark.kind, since=mark.since, until=version, raises=mark.raises, of=of.__name__))


def _marked(mark: Mark) -> Callable[[F], F]:
    def marker(method: F) -> F:
        setattr(method, MARK, mark)
        return method

    return marker


class Replicated:
    """Base of classes whose objects are replicated.

    Every attribute is part of the state, private ones too, and is stored by its annotation: in the
    class, in `__init__`, or that of the parameter it is assigned from; built-in scalars need none.
    Commands and queries of one object never run at the same time.
    """

    __slots__ = ("__attributes", "__dict__", "__log_time", "__weakref__")

    __log_time: int
    __attributes: Attributes | None

    def __init_subclass__(cls, *, version: int | None = None, **kwargs: object) -> None:
        """`version` of the class, from 1; that of its base, or 1, if it is not said."""
        super().__init_subclass__(**kwargs)
        if version is not None:
            if type(version) is not int or version < 1:
                raise ConfigError(f"{cls.__name__}: version={version!r}: versions are counted from 1")
            setattr(cls, VERSION, version)

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

    def upgrade(self, version: int) -> None:
        """Change the state into that of `version`. Override where attributes alone do not do it.

        Called once for each version on the way, on every member at the same index of the log. Attributes
        that `__init__` sets and older versions lack have their first value then.
        """

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
            # Here, and not above: clients call machines and store none.
            from connect_kv.framework.attributes import Attributes

            self.__attributes = Attributes(self, Replicated)
        return self.__attributes

    @staticmethod
    def _attributes_of(machine: Replicated) -> Attributes:
        return machine.__stored()

    @staticmethod
    def _restore_older(machine: Replicated, chunks: Iterable[bytes]) -> None:
        if type(machine).restore is not Replicated.restore:
            machine.restore(chunks)
        else:
            machine.__stored().load(vars(machine), chunks, complete=False)

    @staticmethod
    def _twin(machine: T) -> T:
        kind = type(machine)
        twin = kind.__new__(kind)
        if kind.restore is Replicated.restore:
            twin.__attributes = machine.__stored()
        return twin

    @staticmethod
    def _complete(machine: Replicated) -> None:
        if type(machine).restore is Replicated.restore:
            machine.__stored().complete(vars(machine))

    @staticmethod
    def _set_log_time(machine: Replicated, log_time: int) -> None:
        machine.__log_time = log_time


set_log_time = Replicated._set_log_time
"""For the host, before each call."""

attributes_of = Replicated._attributes_of
"""For the host: how the attributes of a machine without a snapshot of its own are stored."""
restore_older = Replicated._restore_older
"""For the host: the state of an older version, with the attributes it has and no others."""
twin = Replicated._twin
"""For the host: an object of the same class without a state."""
complete = Replicated._complete
"""For the host, before an upgrade: what the newest version has besides gets its first value."""


def version_of(owner: type) -> int:
    """The version of a Replicated class."""
    version = getattr(owner, VERSION, 1)
    assert isinstance(version, int)
    return version
