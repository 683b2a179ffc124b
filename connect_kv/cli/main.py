"""connect-kv: the command."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import NoReturn

import click
from click.shell_completion import CompletionItem

from connect_kv import errors
from connect_kv.cli.settings import Settings, common_options

FAILED = 1
MISCONFIGURED = 2
INTERRUPTED = 130


COMMANDS: Mapping[str, tuple[str, str]] = {
    "alarm": ("maintenance:alarm", "Alarms: NOSPACE and CORRUPT, raised by members, ended by you."),
    "auth": ("auth:auth", "Whether the cluster asks who calls."),
    "bench": ("bench:bench", "Load the cluster and say how fast it answered."),
    "call": ("machine:call", "Call a replicated machine, or list what can be called."),
    "certs": ("certs:certs", "Certificates for TLS, signed by an authority of your own."),
    "compact": ("kv:compact", "Forget everything before a revision."),
    "completion": ("completion:completion", "Have your shell complete commands and options."),
    "defrag": ("maintenance:defrag", "Have members give back unneeded disk space."),
    "del": ("kv:delete", "Delete a key, a range, or all keys with a prefix."),
    "dev": ("dev:dev", "Run a local cluster in this terminal, until Ctrl-C."),
    "elect": ("contest:elect", "Become the leader of an election, or see who is."),
    "endpoint": ("endpoint:endpoint", "Single members: whether they answer, and how fast."),
    "etcd": ("etcd:etcd", "Run one node in an etcd's place, by etcd's own flags."),
    "get": ("kv:get", "Print a key, a range, or all keys with a prefix."),
    "hash": ("maintenance:hash_members", "Print each member's hash of the keys and their history."),
    "import-etcd": ("import_etcd:import_etcd", "Move in from etcd: a new cluster with all that it holds."),
    "inspect": ("disk:inspect", "Show what a stopped node has on disk."),
    "lease": ("lease:lease", "Leases: keys that live as long as somebody renews them."),
    "lock": ("contest:lock", "Run a command under a lock, or see who holds it."),
    "login": ("login:login", "Log in, and keep the token for later calls."),
    "logout": ("login:logout", "Forget the token of a login."),
    "machine": ("machine_control:machine", "Replicated machines: versions, and one that stopped."),
    "member": ("member:member", "Members of the cluster: see, add, replace and remove them."),
    "mirror": ("mirror:mirror", "Follow an etcd, or be followed, until you switch."),
    "move-leader": ("maintenance:move_leader", "Have the leader hand over to another member."),
    "put": ("kv:put", "Store a value under a key."),
    "role": ("role:role", "Roles: rights on keys and machines."),
    "serve": ("serve:serve", "Run one node until it is told to stop."),
    "simulate": ("simulate:simulate", "Run clusters of a class of yours under faults, in no time."),
    "snapshot": ("snapshot:snapshot", "Backups: take one, look at it, restore it into a new cluster."),
    "status": ("status:status", "Show every member: who leads, how far each has come."),
    "top": ("top:top", "Show the whole cluster live in this terminal."),
    "txn": ("txn:txn", "Run a transaction that is read from standard input."),
    "user": ("user:user", "Users: who may log in, and the roles they hold."),
    "verify": ("disk:verify", "Read all that a stopped node has on disk, with all checksums."),
    "version": ("version:version", "Print the version of this software."),
    "watch": ("watch:watch", "Print each change of a key, a range or a prefix."),
}
"""Module and function of each, and a line of help: it is loaded when it is used. A node starts without
the other commands, and the list of all of them needs none.
"""


class Commands(click.Group):
    """The commands named in `COMMANDS`, each loaded when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands, in the order in which help shows them."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The one of that name."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(f"connect_kv.cli.{module}"), name)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Their names for a shell, without loading any, or the options."""
        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        return [
            CompletionItem(name, help=COMMANDS[name][1])
            for name in self.list_commands(ctx)
            if name.startswith(incomplete)
        ]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List them without loading any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in self.list_commands(ctx)])


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
    # The library's own lines about connections that come and go are not for a terminal.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
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
        case errors.Refused(message="etcdserver: user name is empty"):
            return f"{error}: say who calls with --user NAME, or connect-kv login"
        case errors.Refused(message="etcdserver: invalid auth token"):
            return f"{error}: connect-kv login gets another"
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
