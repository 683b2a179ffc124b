"""One command makes a shell complete the others."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.conftest import Cli
from tests.cli.terminal import ESCAPES, Screen
from tests.etcd import skip_loudly


def home(cli: Cli) -> Path:
    """An empty one, and the command in its PATH."""
    directory = cli.directory / "home"
    directory.mkdir()
    programs = cli.directory / "bin"
    programs.mkdir()
    program = programs / "connect-kv"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m connect_kv.cli.main "$@"\n')
    program.chmod(0o755)
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "ZDOTDIR", "BASH_ENV"):
        cli.environment.pop(name, None)
    cli.environment |= {
        "HOME": str(directory),
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    return directory


def shell_or_skip(shell: str) -> str:
    program = shutil.which(shell)
    if program is None:
        skip_loudly(f"no {shell}: scripts/ci-tools installs it")
    assert program is not None
    return program


def until_shown(screen: Screen, text: str) -> None:
    end = time.monotonic() + 30
    while text not in re.sub(".\b", "", ESCAPES.sub("", screen.text)):  # as it stands there, rubbed out
        assert time.monotonic() < end, f"{text!r} is not in {screen.text!r}"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("shell", "options"), [("bash", ["--noprofile", "-i"]), ("zsh", ["--no-globalrcs", "-i"])]
)
def test_a_new_shell_completes_what_is_typed(cli: Cli, shell: str, options: list[str]) -> None:
    program, directory = shell_or_skip(shell), home(cli)
    (directory / ".zshrc").write_text("PROMPT='$ '\n")
    assert cli("completion", "install", shell).code == 0
    script = next(path for path in (directory / ".local/share").rglob("*") if path.is_file())
    if shell == "bash":  # as it is with and without the package bash-completion
        (directory / ".bashrc").write_text(f"PS1='$ '\n. '{script}'\n")
    screen = Screen({**cli.environment, "PWD": str(directory)}, program, *options)
    try:
        until_shown(screen, "$ ")
        screen.type("connect-kv snaps\t")
        until_shown(screen, "connect-kv snapshot ")
        screen.type("resto\t")
        until_shown(screen, "snapshot restore ")
        screen.type("--bump-r\t")
        until_shown(screen, "restore --bump-revision")
    finally:
        screen.close()


def test_fish_finds_it_by_itself(cli: Cli) -> None:
    program = shell_or_skip("fish")
    home(cli)
    assert cli("completion", "install", "fish").code == 0

    def completed(line: str) -> list[str]:
        told = subprocess.run(
            [program, "-c", f"complete -C '{line}'"],
            env=cli.environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return [one.split("\t")[0] for one in told.stdout.splitlines()]

    assert completed("connect-kv sna") == ["snapshot"]
    assert completed("connect-kv snapshot ") == ["restore", "save", "status"]
    assert completed("connect-kv get --pre") == ["--prefix"]


def test_installing_again_changes_nothing_and_the_rest_of_a_start_file_stays(cli: Cli) -> None:
    directory = home(cli)
    start = directory / ".zshrc"
    start.write_text("alias ll='ls -l'")
    first = cli("completion", "install", "zsh")
    assert str(start) in first.out
    text = start.read_text()
    assert text.startswith("alias ll='ls -l'\n[ -r ")
    again = cli("completion", "install", "zsh")
    assert again.code == 0
    assert start.read_text() == text


def test_the_shell_of_the_user_is_taken(cli: Cli) -> None:
    cli.environment["SHELL"] = "/usr/bin/fish"
    assert cli("completion", "show").out == cli("completion", "show", "fish").out != ""
    cli.environment["SHELL"] = "/bin/tcsh"
    done = cli("completion", "show")
    assert (done.code, "bash, zsh, fish" in done.err) == (2, True)
    assert cli("completion", "show", "tcsh").code == 2
