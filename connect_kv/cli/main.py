"""connect-kv: the command."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

# The library's own lines about connections that come and go are not for a terminal.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import click

from connect_kv import errors
from connect_kv.cli import disk, kv, lease, machine, maintenance, member, snapshot, status, txn, watch
from connect_kv.cli.bench import bench
from connect_kv.cli.dev import dev
from connect_kv.cli.serve import serve
from connect_kv.cli.settings import Settings, common_options
from connect_kv.cli.simulate import simulate

FAILED = 1
MISCONFIGURED = 2
INTERRUPTED = 130


@click.group(
    params=common_options(),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(package_name="connect-kv", prog_name="connect-kv")
@click.pass_context
def group(context: click.Context) -> None:
    """A replicated key/value store that speaks etcd's API, and replicated Python classes beside it.

    `serve` runs a node, `dev` a whole cluster in one terminal; the other commands talk to a running
    one. Options for these may stand before or after the command.
    """
    context.ensure_object(Settings)


for command in (
    serve,
    dev,
    kv.put,
    kv.get,
    kv.delete,
    txn.txn,
    watch.watch,
    lease.lease,
    kv.compact,
    machine.call,
    status.status,
    member.member,
    maintenance.move_leader,
    maintenance.alarm,
    maintenance.defrag,
    maintenance.hash_members,
    snapshot.snapshot,
    simulate,
    disk.inspect,
    disk.verify,
    bench,
):
    group.add_command(command)


def main() -> NoReturn:
    """Run the command line; every failure is one line on standard error and an exit code."""
    try:
        code = group.main(standalone_mode=False, prog_name="connect-kv")
    except click.exceptions.Exit as end:
        sys.exit(end.exit_code)
    except click.ClickException as error:
        _fail(_usage(error), error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        _discard_output()
        sys.exit(FAILED)
    except (errors.ConfigError, errors.RefusedToStart) as error:
        _fail(str(error), MISCONFIGURED)
    except errors.ConnectKvError as error:
        _fail(describe(error), FAILED)
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error), FAILED)
    except Exception as error:
        if os.environ.get("CONNECT_KV_DEBUG"):
            raise
        _fail(f"{type(error).__name__}: {error} (CONNECT_KV_DEBUG=1 shows where)", FAILED)
    sys.exit(code if isinstance(code, int) else 0)


def describe(error: errors.ConnectKvError) -> str:
    """What happened and, where the text alone does not say, what it means."""
    match error:
        case errors.OutcomeUnknown():
            return f"the outcome is unknown, it may or may not have taken effect: {error}"
        case errors.Unavailable():
            return f"no answer, nothing was changed: {error}"
        case _:
            return str(error)


def _usage(error: click.ClickException) -> str:
    text = error.format_message()
    context = getattr(error, "ctx", None)
    return f"{text} (see {context.command_path} --help)" if isinstance(context, click.Context) else text


def _fail(text: str, code: int) -> NoReturn:
    line = " ".join(text.split())
    click.echo(f"{click.style('error:', fg='red', bold=True)} {line}", err=True)
    sys.exit(code)


def _discard_output() -> None:
    """Whoever read our output has gone: keep Python from complaining about it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
