"""dev: a local cluster of real processes in one terminal."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shlex
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import click
import uvloop

from connect_kv import errors
from connect_kv.cli.ports import Ports, check_free, choose
from connect_kv.client.client import connect
from connect_kv.credentials import Tls

COLOURS = ("cyan", "magenta", "yellow", "green", "blue", "red")
STOP_TIMEOUT = 15.0
"""Seconds the nodes get to end by themselves."""
LINE_LIMIT = 1 << 20


@click.command()
@click.option(
    "--nodes",
    type=click.IntRange(1, len(COLOURS)),
    default=3,
    show_default=True,
    envvar="CONNECT_KV_NODES",
    help="How many nodes.",
)
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    envvar="CONNECT_KV_DATA_DIR",
    help="Where they keep their data; kept between runs.  [default: ./connect-kv.dev]",
)
@click.option("--free-ports", is_flag=True, help="Any free ports; without --data-dir the data is temporary.")
@click.option("--machine", "machines", metavar="NAME=module:Class", multiple=True, help="As `serve` does.")
@click.option("--tls", is_flag=True, help="Everything over TLS, by certificates made in the data directory.")
@click.argument("serve_arguments", nargs=-1, type=click.UNPROCESSED, metavar="[-- SERVE_OPTIONS...]")
def dev(
    nodes: int,
    data_dir: Path | None,
    free_ports: bool,
    machines: tuple[str, ...],
    tls: bool,
    serve_arguments: tuple[str, ...],
) -> None:
    """Run a local cluster, each node a process of its own, until Ctrl-C.

    Clients reach it on 2379, 22379, 32379, ...; peers and HTTP are on the next two ports. A node
    that ended is started again by `r` and its name (`r n2`, Enter), or by the command that is printed.
    """
    with contextlib.ExitStack() as stack:
        if data_dir is None and free_ports:
            data_dir = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="connect-kv-")))
        directory = data_dir or Path("connect-kv.dev")
        ports = choose(directory, nodes, free_ports, check_free)
        arguments = [word for machine in machines for word in ("--machine", machine)]
        certs = make_certificates(directory / "certs", nodes) if tls else None
        cluster = DevCluster(directory, ports, [*arguments, *serve_arguments], certs)
        sys.exit(uvloop.run(cluster.run()))


class DevCluster:
    """The processes, and one terminal for all they say."""

    def __init__(
        self,
        directory: Path,
        ports: Sequence[Ports],
        arguments: Sequence[str],
        certs: Path | None = None,
    ) -> None:
        """`certs`: the folder `make_certificates` made, for TLS."""
        self._certs = certs
        self._directory = directory
        self._ports = ports
        self._arguments = arguments
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._stopping = asyncio.Event()
        self._keyboard: Keyboard

    async def run(self) -> int:
        """Start all, show their output, stop all; the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stopping.set)
        async with asyncio.TaskGroup() as tasks:
            self._keyboard = Keyboard(lambda line: self._obey(line, tasks))
            try:
                for index in range(len(self._ports)):
                    tasks.create_task(self._node(index, await self._start(index)))
                announcing = tasks.create_task(self._announce())
                await self._stopping.wait()
                announcing.cancel()
            finally:
                self._keyboard.close()
                await self._stop()
        codes = [process.returncode or 0 for process in self._processes.values()]
        return max((code for code in codes if code > 0), default=1 if any(codes) else 0)

    async def _start(self, index: int) -> asyncio.subprocess.Process:
        name = _name(index)
        process = await asyncio.create_subprocess_exec(
            *self._command(index),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=LINE_LIMIT,
            env=_environment(),
        )
        self._processes[name] = process
        ports = self._ports[index]
        scheme = "http" if self._certs is None else "https"
        _say(
            index,
            f"pid {process.pid}  clients 127.0.0.1:{ports.client}  peers 127.0.0.1:{ports.peer}"
            f"  {scheme}://127.0.0.1:{ports.http}/metrics",
        )
        return process

    def _command(self, index: int) -> list[str]:
        ports = self._ports[index]
        cluster = ",".join(f"{_name(i)}=127.0.0.1:{one.peer}" for i, one in enumerate(self._ports))
        return [
            *(sys.executable, "-m", "connect_kv.cli.main", "serve"),
            *("--name", _name(index)),
            *("--data-dir", str(self._directory / _name(index))),
            *("--listen-client", f"127.0.0.1:{ports.client}"),
            *("--listen-peer", f"127.0.0.1:{ports.peer}"),
            *("--listen-http", f"127.0.0.1:{ports.http}"),
            *("--initial-cluster", cluster),
            *(() if self._certs is None else _tls_arguments(self._certs, _name(index))),
            *self._arguments,
        ]

    async def _node(self, index: int, process: asyncio.subprocess.Process) -> None:
        """Show what it says until it ends."""
        assert process.stdout is not None
        while line := await process.stdout.readline():
            _say(index, _short(line.decode(errors="replace").rstrip(), _name(index)))
        code = await process.wait()
        if self._stopping.is_set():
            return
        _say(index, f"ended with exit code {code}; the others go on", bold=True)
        by_hand = f"{_environment_words()}{shlex.join(self._command(index))}"
        again = f"r {_name(index)} and Enter, or elsewhere:" if self._keyboard.works else "elsewhere:"
        _say(index, f"to start it again: {again}  {by_hand}")
        if not self._keyboard.works and all(one.returncode is not None for one in self._processes.values()):
            self._stopping.set()

    def _obey(self, line: str, tasks: asyncio.TaskGroup) -> None:
        """Do what was typed: ``r`` starts the node named, or each that ended, again."""
        verb, *names = line.split() or [""]
        known = [_name(index) for index in range(len(self._ports))]
        if not verb:
            return
        strangers = sorted(set(names) - set(known))
        if verb != "r" or strangers:
            click.echo(f"expected r and a name: {', '.join(known)}", err=True)
            return
        for index, name in enumerate(known):
            if name in names or not names:
                if self._processes[name].returncode is None:
                    if names:
                        _say(index, f"runs already, pid {self._processes[name].pid}")
                else:
                    tasks.create_task(self._again(index))

    async def _again(self, index: int) -> None:
        await self._node(index, await self._start(index))

    async def _announce(self) -> None:
        """Say when the cluster answers."""
        endpoints = ",".join(f"127.0.0.1:{ports.client}" for ports in self._ports)
        certs, words = self._certs, ""
        tls = None
        if certs is not None:
            tls = Tls(ca=certs / "ca.pem", cert=certs / "client.pem", key=certs / "client.key")
            words = f" --cacert {tls.ca} --cert {tls.cert} --key {tls.key}"
        async with connect(endpoints, timeout=2, session=False, tls=tls) as client:
            while True:
                # While one of ours does not run, whoever has its port may answer.
                if all(process.returncode is None for process in self._processes.values()):
                    with contextlib.suppress(errors.ConnectKvError):
                        with contextlib.suppress(errors.Refused):  # who asks for users answers
                            await client.get("ready?")
                        break
                await asyncio.sleep(0.2)
        click.secho(
            f"\n  The cluster is ready.  Endpoints: {endpoints}\n"
            f"  Try:  connect-kv --endpoints {endpoints}{words} status\n"
            f"  Data in {self._directory}; stop with Ctrl-C.\n",
            bold=True,
        )

    async def _stop(self) -> None:
        """Ask all to end; kill what does not."""
        running = [process for process in self._processes.values() if process.returncode is None]
        for process in running:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        try:
            async with asyncio.timeout(STOP_TIMEOUT):
                await asyncio.gather(*(process.wait() for process in running))
        except TimeoutError:
            for process in running:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()


class Keyboard:
    """Lines that are typed while the loop runs. `works` is False once there are none to come."""

    def __init__(self, line: Callable[[str], None]) -> None:
        self._line = line
        self._typed = b""
        self._loop = asyncio.get_running_loop()
        self.works = False
        with contextlib.suppress(
            OSError, ValueError, AttributeError
        ):  # closed, or a file, which no loop can wait for
            self._input = sys.stdin.fileno()
            self._loop.add_reader(self._input, self._read)
            self.works = True

    def close(self) -> None:
        """Listen no more."""
        if self.works:
            self._loop.remove_reader(self._input)
            self.works = False

    def _read(self) -> None:
        # In the background, reading from the terminal would stop this process.
        background = os.isatty(self._input) and os.tcgetpgrp(self._input) != os.getpgrp()
        typed = b"" if background else os.read(self._input, 4096)
        if not typed:
            self.close()
            return
        *lines, self._typed = (self._typed + typed).split(b"\n")
        for one in lines:
            self._line(one.decode(errors="replace"))


def make_certificates(folder: Path, nodes: int) -> Path:
    """An authority, a certificate for each node and one for a client; those that are there stay."""
    from connect_kv.authority import AUTHORITY, make_authority, make_client, make_node, pair

    if not pair(folder, AUTHORITY).cert.exists():
        make_authority(folder)
    for index in range(nodes):
        if not pair(folder, _name(index)).cert.exists():
            make_node(folder, _name(index), ["127.0.0.1", "localhost"])
    if not pair(folder, "client").cert.exists():
        make_client(folder, "client")
    return folder


def _tls_arguments(certs: Path, name: str) -> list[str]:
    """The same certificate for clients and members, who all must show one."""
    cert, key, ca = (str(certs / file) for file in (f"{name}.pem", f"{name}.key", "ca.pem"))
    return [
        *("--cert-file", cert, "--key-file", key, "--trusted-ca-file", ca),
        *("--peer-cert-file", cert, "--peer-key-file", key, "--peer-trusted-ca-file", ca),
    ]


def _name(index: int) -> str:
    return f"n{index + 1}"


def _short(line: str, name: str) -> str:
    """A log line without what this terminal says already: the day and the member's name."""
    found = re.match(rf"[\d-]+T([\d:.]+)Z ([A-Z]+) {name} (.*)", line)
    return f"{found[1]} {found[2]:<7} {found[3]}" if found else line


def _environment() -> dict[str, str]:
    """Ours without what would configure a single node: each gets its own by options."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("CONNECT_KV_") or name.startswith("CONNECT_KV_LOG_")
    }


def _environment_words() -> str:
    """What stands before a command that is to be started as the nodes are: without what configures us."""
    unset = sorted(set(os.environ) - set(_environment()))
    return f"env {' '.join(f'-u {name}' for name in unset)} " if unset else ""


def _say(index: int, text: str, *, bold: bool = False) -> None:
    click.echo(
        f"{click.style(_name(index), fg=COLOURS[index], bold=True)} | {click.style(text, bold=bold or None)}"
    )
