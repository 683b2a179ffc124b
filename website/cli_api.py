"""Reference of the command line, from the commands themselves."""

from __future__ import annotations

from connect_kv.cli.main import COMMANDS

HEAD = """Command line
============
Made from the commands: what ``connect-kv COMMAND --help`` says. Options of `serve` with their keys in
Connect.toml and their environment variables: :doc:`../configuration`. Options for all commands that talk to a
cluster (`--endpoints`, `--timeout`, `--user`, TLS, `--output`) may stand before or after the command.

"""


def page() -> str:
    """One heading for each command and each of its subcommands, as reStructuredText."""
    return HEAD + "\n".join(
        f".. click:: connect_kv.cli.{place}\n   :prog: connect-kv {name}\n   :nested: full\n"
        for name, (place, _) in sorted(COMMANDS.items())
    )
