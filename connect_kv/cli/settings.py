"""What every command that talks to a cluster takes: endpoints, timeout, output format."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from connect_kv.cli.quantities import Duration
from connect_kv.client.client import DEFAULT_ENDPOINTS, Client, connect
from connect_kv.client.endpoints import asks_tls, parse_endpoints
from connect_kv.credentials import Tls

T = TypeVar("T")

FORMATS = ("simple", "json", "table")


@dataclass(slots=True)
class Settings:
    """How to reach the cluster and how to print what it says."""

    endpoints: str = DEFAULT_ENDPOINTS
    timeout: float = 5.0
    output: str = "simple"
    chosen: bool = False
    """Whether the output format was asked for."""
    given: set[str] = field(default_factory=set)
    """Common options that stood on the command line, before or after the command."""
    tls: dict[str, str] = field(default_factory=dict)
    """Files of TLS, by the fields of `Tls`."""
    user: str = ""
    """NAME or NAME:PASSWORD; empty: whoever has logged in here."""
    password_file: str = ""
    _identity: dict[str, str] | None = field(default=None, repr=False)
    hex: bool = False
    """Whether keys and values are given and printed as hexadecimal digits."""

    @property
    def quiet(self) -> bool:
        """Whether a program reads what is printed: nothing is said of progress then."""
        return self.output == "json"

    @property
    def uses_tls(self) -> bool:
        """Whether members are reached over TLS. Raises ConfigError where endpoints contradict."""
        return asks_tls(self.endpoints, bool(self.tls))

    def client(self, endpoints: str = "") -> Client:
        """A client that makes single calls: a command does one thing, a session is not worth opening.

        Raises ConfigError for a password or a login that cannot be read.
        """
        return connect(
            endpoints or self.endpoints,
            timeout=self.timeout,
            session=False,
            tls=self.files,
            **self.identity,  # type: ignore[arg-type]  # texts, by the names of the parameters
        )

    def anonymous(self, token: str = "") -> Client:
        """A client of nobody, or of who has that token."""
        return connect(self.endpoints, timeout=self.timeout, session=False, tls=self.files, token=token)

    @property
    def files(self) -> Tls | None:
        """The files of TLS, if any were given."""
        return Tls(**self.tls) if self.tls else None

    @property
    def identity(self) -> dict[str, str]:
        """Who calls, as `connect` takes it: --user, else who has logged in. A person is asked once."""
        if self._identity is None:
            if self.user:
                user, password = self.user_and_password()
                self._identity = {"user": user, "password": password}
            else:
                from connect_kv.cli import logins

                token = logins.token_for(parse_endpoints(self.endpoints), tls=self.uses_tls)
                self._identity = {"token": token} if token else {}
        return self._identity

    def user_and_password(self) -> tuple[str, str]:
        """Name and password of --user. Raises ConfigError where no password is to be had."""
        from connect_kv.cli.passwords import password_of

        name, colon, password = self.user.partition(":")
        if colon and not self.password_file:
            return name, password
        found = password_of(
            self.user, file=self.password_file, file_option="--password-file", variable="CONNECT_KV_PASSWORD"
        )
        return self.user, found

    def run(self, work: Callable[[Client], Coroutine[object, object, T]]) -> T:
        """Run `work` with a connected client."""
        client = self.client()  # it may have to ask for a password

        async def connected() -> T:
            async with client:
                return await work(client)

        return self.run_alone(connected)

    def run_alone(self, work: Callable[[], Coroutine[object, object, T]]) -> T:
        """Run `work`, which makes its own client."""
        import uvloop  # here, like all that a command needs only once it talks to somebody

        return uvloop.run(work())


def _counts(context: click.Context, option: click.Parameter) -> bool:
    """Whether a value rules: the environment, which is asked anew by each command, never over an option."""
    given = context.ensure_object(Settings).given
    name = option.name or ""
    if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
        given.add(name)
        return True
    return name not in given


def _option(
    names: list[str],
    take: Callable[[Settings, Any], None],
    variable: str,
    help: str,
    *,
    metavar: str | None = None,
    type: click.ParamType[Any] | None = None,
    blank: bool = False,
) -> click.Option:
    """An option that stands before or after the command's name; `take` is handed the value that rules.

    `blank`: whether empty text is one.
    """

    def callback(context: click.Context, option: click.Parameter, value: Any) -> None:
        if value is not None and (value != "" or blank) and _counts(context, option):
            take(context.ensure_object(Settings), value)

    return click.Option(
        names, metavar=metavar, type=type, envvar=f"CONNECT_KV_{variable}", show_envvar=True,
        expose_value=False, callback=callback, help=help,
    )  # fmt: skip


def _set(name: str) -> Callable[[Settings, Any], None]:
    return lambda settings, value: setattr(settings, name, value)


def _choose_output(settings: Settings, value: str) -> None:
    settings.output, settings.chosen = value, True


def _tls_option(name: str, field: str, help: str) -> click.Option:
    """For the field of `Tls`. Commands have arguments of their own called key."""

    def take(settings: Settings, value: str) -> None:
        settings.tls[field] = value

    return _option([f"--{name}", f"tls_{name}"], take, name.upper(), help, metavar="FILE")


def common_options() -> list[click.Parameter]:
    """The options of every command that talks to a cluster."""
    return [
        _option(
            ["--endpoints", "-e"], _set("endpoints"), "ENDPOINTS",
            f"Members to ask, in turn.  [default: {DEFAULT_ENDPOINTS}]", metavar="HOST:PORT,...",
            blank=True,
        ),
        _option(
            ["--timeout"], _set("timeout"), "TIMEOUT",
            "How long the call may take, such as 500ms; seconds without a unit.  [default: 5s]",
            metavar="DURATION", type=Duration(above=0),
        ),
        _tls_option("cacert", "ca",
                    "Talk TLS; members' certificates must be signed by the CAs in this file."),
        _tls_option("cert", "cert", "The certificate to show to members."),
        _tls_option("key", "key", "Its key."),
        _option(
            ["--user", "calling_user"], _set("user"), "USER",
            "Who calls. Without a password: that of --password-file, of CONNECT_KV_PASSWORD, or you are "
            "asked.  [default: who has logged in]", metavar="NAME[:PASSWORD]",
        ),
        _option(
            ["--password-file", "calling_password_file"], _set("password_file"), "PASSWORD_FILE",
            "The password of --user, one line; '-': standard input.", metavar="FILE",
        ),
        output_option(),
    ]  # fmt: skip


def output_option() -> click.Option:
    """How to print, likewise to be given before or after the command's name."""
    return _option(
        ["--output", "-o"], _choose_output, "OUTPUT", "How to print the answer.", type=click.Choice(FORMATS)
    )


class ClusterCommand(click.Command):
    """A command that talks to a cluster: its own parameters, then the common ones."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]  # click's own many parameters
        self.params = [*self.params, *common_options()]


class LocalCommand(click.Command):
    """A command that talks to nobody and prints something."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]  # click's own many parameters
        self.params = [*self.params, output_option()]


pass_settings = click.make_pass_decorator(Settings, ensure=True)
