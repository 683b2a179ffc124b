"""Runs one node as a process: event loop, signals, and one clear line with an exit code at the end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module

import uvloop

from connect_kv.config import MachineSpec, ServerConfig, from_options
from connect_kv.errors import (
    ConfigError,
    ConnectKvError,
    MemberRemoved,
    RefusedToStart,
    StorageError,
    StorageInUse,
)
from connect_kv.server import logs
from connect_kv.server.composition import KvServer
from connect_kv.server.first_look import look
from connect_kv.server.machines import hosted
from connect_kv.server.service_manager import ServiceManager
from connect_kv.server.tuning import tune_collector, tune_threads
from connect_kv.statemachine.hosted import HostedMachine
from connect_kv.storage.leveldb import make_directory

logger = logging.getLogger(__name__)

OK = 0
FAILED = 1
REFUSED = 2
"""It must not run like this: starting it again without changing anything gives the same."""


def run_configured(
    options: Mapping[str, object], environ: Mapping[str, str], config_file: str | None = None
) -> int:
    """What ``connect-kv serve`` does; returns the exit code.

    `options` by the names of ServerConfig's fields, those not given None or empty.
    """
    try:
        config = from_options({**options, "config": config_file}, environ)
    except ConfigError as error:
        return complain(error)
    return run(config)


def run(
    config: ServerConfig,
    machines: Mapping[str, HostedMachine] | None = None,
    *,
    ready: Callable[[KvServer], None] | None = None,
    say: Sequence[str] = (),
) -> int:
    """Serve until SIGTERM or SIGINT, or until the node fails; returns the exit code.

    `machines` beside those that the configuration names. `ready` is called once it serves. `say`: warnings
    about how it was started.
    """
    logs.configure(config.log_format, config.log_level, config.name)
    for line in say:
        logger.warning(line)
    try:
        all_machines = {**(machines or {}), **load_machines(config.machines)}
        look(config)
        _make_directory(config)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_serve(config, all_machines, ready))
    except ConnectKvError as error:
        return complain(error)


def _make_directory(config: ServerConfig) -> None:
    """Raises ConfigError: a data directory that cannot be is a mistake of whoever named it."""
    try:
        make_directory(config.data_dir)
        mode = config.data_dir.stat().st_mode & 0o777
    except OSError as error:
        raise ConfigError(f"data directory {config.data_dir}: {error.strerror or error}") from error
    if mode & 0o007:
        logger.warning(
            "everybody on this machine can read the data directory: chmod 700",
            extra={"directory": str(config.data_dir), "mode": f"{mode:04o}"},
        )


def complain(error: BaseException) -> int:
    """Say on standard error, in one line, why this process does not run; returns its exit code."""
    text = " ".join(str(error).split()) or type(error).__name__
    logs.say_last(text)
    refused = isinstance(error, ConfigError | RefusedToStart | MemberRemoved | StorageInUse)
    return REFUSED if refused else FAILED


def load_machines(specs: tuple[MachineSpec, ...]) -> dict[str, HostedMachine]:
    """Import user machines. Raises ConfigError naming the one that cannot be used."""
    return {spec.name: _load(spec) for spec in specs}


def _load(spec: MachineSpec) -> HostedMachine:
    where = f"machine {spec.name}={spec.module}:{spec.attribute}"
    if "" not in sys.path:
        sys.path.insert(0, "")  # a module in the directory the node is started in
    try:
        found = getattr(import_module(spec.module), spec.attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{where}: {error}") from error
    try:
        machine = found() if isinstance(found, type) else found
    except Exception as error:
        raise ConfigError(f"{where}: {type(error).__name__}: {error}") from error
    return hosted(machine, where)


async def _serve(
    config: ServerConfig,
    machines: Mapping[str, HostedMachine],
    ready: Callable[[KvServer], None] | None,
) -> int:
    tune_threads()
    server = KvServer(config, machines)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if config.audit_log is not None:
        loop.add_signal_handler(signal.SIGHUP, server.reopen_files)
    await server.start()
    _tell_once_ready(server, config)
    tune_collector()
    manager = ServiceManager(os.environ, os.getpid())
    manager.ready()
    failed = server.failed
    if ready is not None:
        ready(server)
    failed.add_done_callback(lambda _: stop.set())
    await stop.wait()
    manager.stopping()
    if failed.done():
        code = complain(failed.result())
        await server.stop()
        return code
    logger.info("stopping")
    await server.stop()
    logger.info("stopped")
    return complain(failed.result()) if failed.done() and _bad(failed.result()) else OK


def _tell_once_ready(server: KvServer, config: ServerConfig) -> None:
    """It listens already; calls are answered once there is a leader. Whoever starts an etcd waits for such a
    line.
    """
    told = False

    def look() -> None:
        nonlocal told
        if not told and server.node.leader_id is not None:
            told = True
            logger.info("ready to serve client requests", extra={"clients": config.client_address})

    server.node.leader_changed.subscribe(look)
    look()


def _bad(error: BaseException) -> bool:
    """Whether something went wrong while the node stopped."""
    return isinstance(error, StorageError)
