"""What `scripts/man-pages` does: the help of every command, as pages for man."""

from __future__ import annotations

import re
import sys
import textwrap
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import click

from connect_kv.cli.main import COMMANDS, group
from connect_kv.cli.settings import common_options

FOLDER = Path(__file__).parent.parent / "packaging" / "man"
PROGRAM = "connect-kv"
COMMON = {option.name for option in common_options()}
_ABOUT = "a replicated key/value store that speaks etcd's API, and replicated Python classes"
_LINE_BYTES = 79
_TITLE = re.compile(r"^\.TH .*$", re.MULTILINE)


def pages(date: str) -> dict[str, str]:
    """By file name."""
    root = click.Context(group, info_name=PROGRAM, max_content_width=110)
    found = {f"{PROGRAM}.1": _program(root, date)}
    for name, (_, line) in sorted(COMMANDS.items()):
        command = group.get_command(root, name)
        assert command is not None
        context = click.Context(command, info_name=name, parent=root)
        found[f"{PROGRAM}-{name}.1"] = _page(context, line, date)
    return found


def _program(root: click.Context, date: str) -> str:
    lines = [
        _head(
            PROGRAM,
            "a replicated key/value store that speaks etcd's API, and replicated Python classes",
            date,
        )
    ]
    lines += [".SH SYNOPSIS", f".B {_escape(PROGRAM)}", r"[\fIOPTIONS\fR] \fICOMMAND\fR [\fIARGUMENTS\fR]"]
    lines += [".SH DESCRIPTION", *_paragraphs(root.command.help or "")]
    lines.append(".SH COMMANDS")
    for name, (_, line) in sorted(COMMANDS.items()):
        lines += [".TP", rf"\fB{_escape(f'{PROGRAM}-{name}')}\fR(1)", _text(line)]
    lines += [".SH OPTIONS", "They may stand before or after the command.", *_options(root, set())]
    lines += [".SH ENVIRONMENT"]
    for option in root.command.params:
        if isinstance(option, click.Option) and isinstance(option.envvar, str):
            name = next(one for one in option.opts if one.startswith("--"))
            lines += [".TP", rf"\fB{_escape(option.envvar)}\fR", _text(f"As {name}.")]
    lines += [".TP", r"\fBCONNECT_KV_PASSWORD\fR", _text("The password of --user.")]
    lines += [
        ".SH EXIT STATUS",
        ".TP", "0", "done",
        ".TP", "1", _text("it failed: one line on standard error says why"),
        ".TP", "2", _text("it was called wrongly, or a file of settings is wrong"),
        ".TP", "130", "interrupted",
    ]  # fmt: skip
    return _finish(lines)


def _page(context: click.Context, line: str, date: str) -> str:
    command = context.command
    name = context.command_path.replace(" ", "-")
    lines = [_head(name, line.rstrip("."), date), ".SH SYNOPSIS"]
    commands = list(_commands(context))
    for number, one in enumerate(commands):
        lines += [".br"] if number else []
        lines += [f".B {_escape(one.command_path)}", _usage(one)]
    lines += [".SH DESCRIPTION", *_paragraphs(command.help or "")]
    if isinstance(command, click.Group):
        lines.append(".SH COMMANDS")
        for one in commands:
            lines += [f'.SS "{_escape(one.command_path)}"', *_paragraphs(one.command.help or "")]
            lines += _options(one, COMMON)
    elif options := list(_options(context, COMMON)):
        lines += [".SH OPTIONS", *options]
    common = {parameter.name for one in commands for parameter in one.command.params} & COMMON
    if "endpoints" in common:
        lines += [".PP", _text("How to reach the cluster, as whom, and how to print the answer:")]
        lines.append(r"see the options of \fBconnect\-kv\fR(1).")
    elif common:
        lines += [".PP", r"How to print the answer: see \-\-output of \fBconnect\-kv\fR(1)."]
    lines += [".SH SEE ALSO", r"\fBconnect\-kv\fR(1)"]
    return _finish(lines)


def _commands(context: click.Context) -> Iterator[click.Context]:
    """Those that can be run: itself, or all below it."""
    command = context.command
    if not isinstance(command, click.Group):
        yield context
        return
    for name in command.list_commands(context):
        below = command.get_command(context, name)
        assert below is not None
        if not below.hidden:
            yield from _commands(click.Context(below, info_name=name, parent=context))


def _head(name: str, line: str, date: str) -> str:
    title = f'.TH {name.upper()} 1 {date} "{PROGRAM} {version(PROGRAM)}" "{PROGRAM}"'
    about = line[0].lower() + line[1:] if line[1:2].islower() else line
    return f"{title}\n.ad l\n.SH NAME\n" + _wrapped(rf"{_escape(name)} \- {_escape(about)}")


def _usage(context: click.Context) -> str:
    """Its options and arguments; words that stand for something are slanted."""
    pieces = " ".join(context.command.collect_usage_pieces(context))
    return _wrapped(re.sub(r"[A-Za-z_]+", lambda word: rf"\fI{_escape(word[0])}\fR", _dashes(pieces)))


def _options(context: click.Context, without: set[str | None]) -> Iterator[str]:
    for option in context.command.params:
        if not isinstance(option, click.Option) or option.name in without or option.hidden:
            continue
        record = option.get_help_record(context)
        assert record is not None
        names, help = record
        yield ".TP"
        yield ", ".join(_option(one) for one in names.split(", "))
        yield from _sentence(help)


def _option(text: str) -> str:
    name, _, takes = text.partition(" ")
    return rf"\fB{_escape(name)}\fR" + (rf" \fI{_escape(takes)}\fR" if takes else "")


def _paragraphs(help: str) -> Iterator[str]:
    r"""Those of a help text; after a line with \b alone, the lines as they are."""
    for number, paragraph in enumerate(re.split(r"\n\s*\n", help.strip())):
        lines = paragraph.splitlines()
        if lines[0].strip() == "\b":
            yield from (
                ".PP",
                ".nf",
                ".RS 4",
                *(_plain(line.replace("\b", "")) for line in lines[1:]),
                ".RE",
                ".fi",
            )
            continue
        if number:
            yield ".PP"
        yield from _sentence(" ".join(line.strip() for line in lines))


def _sentence(text: str) -> Iterator[str]:
    """A line of the page for each sentence, as roff wants it."""
    for line in re.split(r"(?<=[.!?])\s+(?=[A-Z\[`'\"])|\s{2,}", text):
        yield _text(line)


def _text(text: str) -> str:
    """Words, and what stands between backticks in bold."""
    parts = text.split("`")
    return _wrapped(
        "".join(rf"\fB{_escape(one)}\fR" if number % 2 else _escape(one) for number, one in enumerate(parts))
    )


def _wrapped(text: str) -> str:
    lines = textwrap.wrap(text, _LINE_BYTES, break_long_words=False, break_on_hyphens=False)
    return "\n".join(map(_guard, lines))


def _plain(text: str) -> str:
    return _guard(_escape(text))


def _escape(text: str) -> str:
    return _dashes(text.replace("\\", "\\e")).replace("'", "\\(aq").replace('"', "\\(dq")


def _dashes(text: str) -> str:
    return text.replace("-", "\\-")


def _guard(text: str) -> str:
    """A dot at the beginning of a line is none of roff's."""
    return f"\\&{text}" if text.startswith(".") else text


def _finish(lines: list[str]) -> str:
    return "\n".join(lines) + "\n"


def stale(folder: Path = FOLDER) -> list[str]:
    """Names of pages that say something else than the commands, or are of none."""
    wanted = pages("")
    there = {path.name: path.read_text() for path in folder.glob("*.1")}
    return sorted(
        name
        for name in wanted.keys() | there.keys()
        if _TITLE.sub("", wanted.get(name, "")) != _TITLE.sub("", there.get(name, ""))
    )


def write(folder: Path = FOLDER) -> None:
    """Write those that have changed, with today's date."""
    folder.mkdir(parents=True, exist_ok=True)
    changed, found = stale(folder), pages(time.strftime("%Y-%m-%d", time.gmtime()))
    for name in changed:
        if name in found:
            (folder / name).write_text(found[name])
        else:
            (folder / name).unlink()


def main() -> int:
    if sys.argv[1:] != ["--check"]:
        write()
        return 0
    changed = stale()
    if changed:
        print(f"run scripts/man-pages and commit what it writes: {', '.join(changed)}", file=sys.stderr)
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main())
