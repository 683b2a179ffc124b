"""completion: a shell completes commands and options. Not names of keys: those would be calls."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import click
from click.shell_completion import get_completion_class

_PROGRAM = "connect-kv"
_VARIABLE = "_CONNECT_KV_COMPLETE"
"""Where click asks a shell's question; the name follows from the program's."""
_MARK = "# completion of connect-kv"
_BASH_COMPLETION = Path("/usr/share/bash-completion/bash_completion")
"""Of the package that loads what lies in a user's directory by itself."""
_COMPINIT = "(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }\n"
"""zsh has its completion only where somebody switched it on."""

SHELLS = ("bash", "zsh", "fish")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a shell finds it."""

    script: Path
    start_file: Path | None = None
    """What has to read it, where the shell does not by itself."""


@click.group()
def completion() -> None:
    """Have your shell complete commands, options and files; keys are not asked for."""


def _shell(context: click.Context, parameter: click.Parameter, value: str | None) -> str:
    found = value or Path(os.environ.get("SHELL", "")).name
    if found not in SHELLS:
        raise click.UsageError(f"say for which shell: {', '.join(SHELLS)}", context)
    return found


_SHELL = click.argument("shell", type=click.Choice(SHELLS), required=False, callback=_shell)


@completion.command()
@_SHELL
def show(shell: str) -> None:
    """Print the script for SHELL, to be put where it is read; without one for the shell you log in with."""
    click.echo(script(shell), nl=False)


@completion.command()
@_SHELL
def install(shell: str) -> None:
    """Put the script for SHELL where new shells read it; without one for the shell you log in with.

    For fish, and for bash with the package bash-completion, that is a file of its own. Else a line in
    ~/.bashrc or ~/.zshrc reads it. It may be done again at any time: after an update, too.
    """
    place = place_of(shell)
    place.script.parent.mkdir(parents=True, exist_ok=True)
    place.script.write_text(script(shell))
    click.echo(f"written {place.script}")
    if place.start_file is not None:
        _read_at_start(place.start_file, place.script)
    click.echo(f"a new {shell} completes {_PROGRAM}")


def script(shell: str) -> str:
    """What the shell reads."""
    kind = get_completion_class(shell)
    assert kind is not None
    root = click.get_current_context().find_root().command
    text = kind(root, {}, _PROGRAM, _VARIABLE).source()
    if shell == "zsh":
        first, _, rest = text.partition("\n")
        text = f"{first}\n{_COMPINIT}{rest}"
    return f"{text.rstrip()}\n"


def place_of(shell: str) -> Place:
    """Where it goes, by the rules of each shell."""
    data = _directory("XDG_DATA_HOME", ".local/share")
    if shell == "fish":
        return Place(_directory("XDG_CONFIG_HOME", ".config") / "fish/completions" / f"{_PROGRAM}.fish")
    if shell == "zsh":
        start_files = Path(os.environ.get("ZDOTDIR") or Path.home())
        return Place(data / _PROGRAM / "completion.zsh", start_files / ".zshrc")
    place = data / "bash-completion/completions" / _PROGRAM
    return Place(place, None if _BASH_COMPLETION.exists() else Path.home() / ".bashrc")


def _directory(variable: str, below_home: str) -> Path:
    return Path(os.environ.get(variable) or Path.home() / below_home)


def _read_at_start(start_file: Path, script: Path) -> None:
    """One line in that file, however often; the rest of it stays as it is."""
    text = start_file.read_text() if start_file.exists() else ""
    if any(line.endswith(_MARK) for line in text.splitlines()):
        return
    if text and not text.endswith("\n"):
        text += "\n"
    quoted = "'" + str(script).replace("'", "'\\''") + "'"
    start_file.write_text(f"{text}[ -r {quoted} ] && . {quoted}  {_MARK}\n")
    click.echo(f"a line in {start_file} reads it")
