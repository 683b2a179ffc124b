"""serve: one node in this process."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, NoReturn, TypeVar

import click

from connect_kv.options import OPTIONS, Kind

if TYPE_CHECKING:
    from connect_kv.config import ServerConfig

F = TypeVar("F", bound=Callable[..., object])


def server_options(*keys: str) -> Callable[[F], F]:
    """The options of a node with these keys, or all. `connect_kv.config` reads and checks the values."""

    def add(function: F) -> F:
        for key in reversed(keys or tuple(OPTIONS)):
            option = OPTIONS[key]
            text = f"{option.help}  [default: {option.default}]  [env: {option.variable}]"
            make = partial(
                click.option, option.flag, key, metavar=option.takes, multiple=option.repeats, help=text
            )
            switch = option.kind is Kind.SWITCH  # without a value it is on
            (make(is_flag=False, flag_value="true") if switch else make())(function)
        return function

    return add


@click.command()
@server_options()
def serve(**options: object) -> None:
    """Run one node until it is told to stop.

    Without any option it is a cluster of its own on 127.0.0.1, with its data in ./connect-kv.data. What
    each option takes, and the same for Connect.toml: docs/configuration.md.
    """
    # Imported here: the other commands start faster without a server.
    from connect_kv.config import from_options
    from connect_kv.errors import ConfigError

    as_json = (options["log_format"] or os.environ.get(OPTIONS["log_format"].variable)) == "json"
    try:
        config = from_options(options, os.environ)
    except ConfigError as error:
        if not as_json:
            raise
        from connect_kv.server import logs
        from connect_kv.server.process import complain

        logs.configure("json", "info", str(options["name"] or OPTIONS["name"].default))
        sys.exit(complain(error))
    run_node(config)


def run_node(config: ServerConfig, say: Sequence[str] = ()) -> NoReturn:
    """Run it in this process, which ends with it. `say`: warnings about how it was started."""
    from connect_kv import grpc_core
    from connect_kv.credentials import grpc_suites

    if config.log_format == "json":
        grpc_core.silence()  # whoever collects the lines shall not meet one that is none of them
    if config.grpc_server == "grpcio":  # before anything loads gRPC by itself
        grpc_core.load(suites=grpc_suites(config.tls_min_version, config.cipher_suites))
    from connect_kv.server import logs
    from connect_kv.server.process import run

    if config.log_format == "json":
        logs.take_over()
    sys.exit(run(config, say=say))
