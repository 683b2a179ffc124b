"""What every command that talks to a cluster takes: endpoints, timeout, output format."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import TypeVar

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
        """Of TLS, if any were given."""
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
        """Of --user. Raises ConfigError where no password is to be had."""
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


def _endpoints(context: click.Context, option: click.Parameter, value: str | None) -> None:
    if value is not None and _counts(context, option):
        context.ensure_object(Settings).endpoints = value


def _timeout(context: click.Context, option: click.Parameter, value: float | None) -> None:
    if value is not None and _counts(context, option):
        context.ensure_object(Settings).timeout = value


def _output(context: click.Context, option: click.Parameter, value: str | None) -> None:
    settings = context.ensure_object(Settings)
    if value is not None and _counts(context, option):
        settings.output = value
        settings.chosen = True


_FILES = {"tls_cacert": "ca", "tls_cert": "cert", "tls_key": "key"}
"""By the parameter's name, which is not the option's: commands have arguments of their own called key."""


def _tls(context: click.Context, option: click.Parameter, value: str | None) -> None:
    if value and _counts(context, option):
        context.ensure_object(Settings).tls[_FILES[option.name or ""]] = value


def _tls_option(name: str, help: str) -> click.Option:
    return click.Option(
        [f"--{name}", f"tls_{name}"],
        metavar="FILE",
        envvar=f"CONNECT_KV_{name.upper()}",
        show_envvar=True,
        expose_value=False,
        callback=_tls,
        help=help,
    )


def _user(context: click.Context, option: click.Parameter, value: str | None) -> None:
    if value and _counts(context, option):
        context.ensure_object(Settings).user = value


def _password_file(context: click.Context, option: click.Parameter, value: str | None) -> None:
    if value and _counts(context, option):
        context.ensure_object(Settings).password_file = value


def _counts(context: click.Context, option: click.Parameter) -> bool:
    """Whether a value rules: the environment, which is asked anew by each command, never over an option."""
    given = context.ensure_object(Settings).given
    name = option.name or ""
    if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
        given.add(name)
        return True
    return name not in given


def common_options() -> list[click.Parameter]:
    """The options, to be given before or after the command's name."""
    return [
        click.Option(
            ["--endpoints", "-e"],
            metavar="HOST:PORT,...",
            envvar="CONNECT_KV_ENDPOINTS",
            show_envvar=True,
            expose_value=False,
            callback=_endpoints,
            help=f"Members to ask, in turn.  [default: {DEFAULT_ENDPOINTS}]",
        ),
        click.Option(
            ["--timeout"],
            type=Duration(above=0),
            metavar="DURATION",
            envvar="CONNECT_KV_TIMEOUT",
            show_envvar=True,
            expose_value=False,
            callback=_timeout,
            help="How long the call may take, such as 500ms; seconds without a unit.  [default: 5s]",
        ),
        _tls_option("cacert", "Talk TLS; members' certificates must be signed by the CAs in this file."),
        _tls_option("cert", "The certificate to show to members."),
        _tls_option("key", "Its key."),
        click.Option(
            ["--user", "calling_user"],
            metavar="NAME[:PASSWORD]",
            envvar="CONNECT_KV_USER",
            show_envvar=True,
            expose_value=False,
            callback=_user,
            help="Who calls. Without a password: that of --password-file, of CONNECT_KV_PASSWORD, or you are "
            "asked.  [default: who has logged in]",
        ),
        click.Option(
            ["--password-file", "calling_password_file"],
            metavar="FILE",
            envvar="CONNECT_KV_PASSWORD_FILE",
            show_envvar=True,
            expose_value=False,
            callback=_password_file,
            help="The password of --user, one line; '-': standard input.",
        ),
        output_option(),
    ]


def output_option() -> click.Option:
    """How to print, likewise to be given before or after the command's name."""
    return click.Option(
        ["--output", "-o"],
        type=click.Choice(FORMATS),
        envvar="CONNECT_KV_OUTPUT",
        show_envvar=True,
        expose_value=False,
        callback=_output,
        help="How to print the answer.",
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
