"""connect-kv: the command."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import NoReturn

# The library's own lines about connections that come and go are not for a terminal.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import click

from connect_kv import errors
from connect_kv.cli.settings import Settings, common_options

FAILED = 1
MISCONFIGURED = 2
INTERRUPTED = 130


COMMANDS: Mapping[str, str] = {
    "alarm": "maintenance:alarm",
    "bench": "bench:bench",
    "call": "machine:call",
    "compact": "kv:compact",
    "defrag": "maintenance:defrag",
    "del": "kv:delete",
    "dev": "dev:dev",
    "get": "kv:get",
    "hash": "maintenance:hash_members",
    "inspect": "disk:inspect",
    "lease": "lease:lease",
    "member": "member:member",
    "move-leader": "maintenance:move_leader",
    "put": "kv:put",
    "serve": "serve:serve",
    "simulate": "simulate:simulate",
    "snapshot": "snapshot:snapshot",
    "status": "status:status",
    "txn": "txn:txn",
    "verify": "disk:verify",
    "watch": "watch:watch",
}
"""Module and function of each, loaded when it is used: a node starts without the other commands."""


class Commands(click.Group):
    """Those of `COMMANDS`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Their names, in order."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The one of that name."""
        module, _, name = COMMANDS.get(cmd_name, "").partition(":")
        if not module:
            return None
        command: click.Command = getattr(import_module(f"connect_kv.cli.{module}"), name)
        return command


@click.group(
    cls=Commands,
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
