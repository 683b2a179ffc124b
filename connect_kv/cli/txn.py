"""txn: several operations as one."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from connect_kv.cli import output
from connect_kv.cli.settings import ClusterCommand, Settings, pass_settings
from connect_kv.cli.txn_text import parse
from connect_kv.cli.values import hex_option
from connect_kv.client.messages import ResponseOp

_HELP = """Run a transaction that is read from standard input.

First conditions, one a line; after a blank line what to do if all hold; after another blank line what to do
otherwise:

\b
    version("lock") = "0"
\b
    put lock mine
\b
    get lock

Conditions compare value, version, create, mod or lease of a key by =, !=, < or >. Operations are put KEY
VALUE [--lease=ID], get KEY [END|--prefix] and del KEY [END|--prefix]. Within double quotes \\xff is that
byte.
"""
"""``\b`` is click's mark for lines that are not to be joined."""


@click.command(cls=ClusterCommand, help=_HELP)
@hex_option
@pass_settings
def txn(settings: Settings) -> None:
    """Run a transaction that is read from standard input."""
    if sys.stdin.isatty():
        click.echo("conditions, blank line, then, blank line, otherwise, end with Ctrl-D:", err=True)
    lines = (os.fsdecode(line) for line in sys.stdin.buffer)
    compare, success, failure = parse(lines, settings.hex)
    answer = settings.run(lambda client: client.transaction(compare, success, failure))
    match settings.output:
        case "json":
            output.as_json(
                {
                    "revision": answer.header.revision,
                    "succeeded": answer.succeeded,
                    "responses": [output.operation(one, settings.hex) for one in answer.responses],
                }
            )
        case "table":
            output.as_table(
                ["#", "operation", "answer"],
                [[number, *_summary(one, settings.hex)] for number, one in enumerate(answer.responses, 1)],
            )
            click.echo("SUCCESS" if answer.succeeded else "FAILURE")
        case _:
            click.echo("SUCCESS" if answer.succeeded else "FAILURE")
            _print(answer.responses, settings.hex)


def _summary(answer: ResponseOp, hex: bool) -> tuple[str, str]:
    match answer.WhichOneof("response"):
        case "response_range":
            kvs = answer.response_range.kvs
            return "get", "\n".join(
                f"{output.text(kv.key, hex)} = {output.text(kv.value, hex)}" for kv in kvs
            )
        case "response_put":
            return "put", "OK"
        case "response_delete_range":
            return "del", f"{answer.response_delete_range.deleted} deleted"
        case _:
            return "txn", "succeeded" if answer.response_txn.succeeded else "failed"


def _print(answers: Sequence[ResponseOp], hex: bool) -> None:
    for answer in answers:
        click.echo()
        match answer.WhichOneof("response"):
            case "response_range":
                output.pairs(answer.response_range.kvs, hex)
            case "response_put":
                click.echo("OK")
            case "response_delete_range":
                click.echo(answer.response_delete_range.deleted)
            case _:
                _print(answer.response_txn.responses, hex)
