"""Printing: text for people, a table for looking, JSON for programs."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence

import click

from connect_kv.client.messages import Event, KeyValue, ResponseOp

Cell = str | int


def show(
    form: str,
    told: object,
    lines: Iterable[str],
    columns: Sequence[str] = (),
    rows: Sequence[Sequence[Cell]] = (),
    styles: Sequence[str] = (),
) -> None:
    """One answer in the form that was asked for: `told` as JSON, a table if it has `columns`, or lines."""
    if form == "json":
        as_json(told)
    elif form == "table" and columns:
        as_table(columns, rows, styles=styles)
    else:
        for line in lines:
            click.echo(line)


def facts(form: str, told: object, rows: Sequence[tuple[str, str]]) -> None:
    """What is known of one thing: `told` as JSON, or names and values."""
    width = max(9, *(len(name) for name, _ in rows))
    lines = (f"{name:<{width}} {value}" for name, value in rows)
    show(form, told, lines, ["what", "value"], rows)


def as_json(value: object) -> None:
    """Print a value as one JSON document on one line."""
    click.echo(json.dumps(value, ensure_ascii=False))


def as_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    *,
    styles: Sequence[str] = (),
    right: Collection[str] = (),
    plain: bool = False,
) -> None:
    """A table; numbers stand right, and the columns named. `styles` colours whole rows.

    A `plain` one has no frame: it leaves more room for what it says.
    """
    # Most answers are plain lines: they come sooner without it.
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None if plain else box.ROUNDED, header_style="bold", pad_edge=not plain, padding=(0, 1))
    for index, column in enumerate(columns):
        numbers = column in right or (bool(rows) and all(isinstance(row[index], int) for row in rows))
        table.add_column(column, justify="right" if numbers else "left", overflow="fold")
    for index, row in enumerate(rows):
        table.add_row(*(_cell(cell) for cell in row), style=styles[index] if index < len(styles) else "")
    # Into a pipe there is no width to keep to.
    width = None if sys.stdout.isatty() else 240
    Console(width=width, highlight=False).print(table)


def _cell(cell: Cell) -> str:
    return str(cell).replace("[", "\\[")


def raw(data: bytes, hex: bool = False) -> None:
    """Print bytes as they are, or as hexadecimal digits, and a line end."""
    sys.stdout.flush()
    sys.stdout.buffer.write((data.hex().encode() if hex else data) + b"\n")
    sys.stdout.buffer.flush()


def pairs(kvs: Iterable[KeyValue], hex: bool = False) -> None:
    """Print keys and values in turns, each on a line, as `raw` does."""
    for kv in kvs:
        raw(kv.key, hex)
        raw(kv.value, hex)


def text(data: bytes, hex: bool = False) -> str:
    """Bytes as a cell of a table: as text where they are UTF-8 that can be printed."""
    if hex:
        return data.hex()
    try:
        decoded = data.decode()
    except UnicodeDecodeError:
        return repr(data)[2:-1]
    return decoded if decoded.isprintable() else repr(decoded)[1:-1]


def named(name: str, data: bytes, hex: bool = False) -> Mapping[str, str]:
    """For JSON: ``name`` if the bytes are UTF-8, else ``name_base64``; or ``name_hex``."""
    if hex:
        return {f"{name}_hex": data.hex()}
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(data).decode()}


def key_value(kv: KeyValue, hex: bool = False) -> dict[str, object]:
    """A key for JSON."""
    return {
        **named("key", kv.key, hex),
        **named("value", kv.value, hex),
        "create_revision": kv.create_revision,
        "mod_revision": kv.mod_revision,
        "version": kv.version,
        "lease": kv.lease,
    }


def event(event: Event, hex: bool = False) -> dict[str, object]:
    """An event for JSON."""
    kind = "DELETE" if event.type == Event.DELETE else "PUT"
    found: dict[str, object] = {"type": kind, "kv": key_value(event.kv, hex)}
    if event.HasField("prev_kv"):
        found["prev_kv"] = key_value(event.prev_kv, hex)
    return found


def key_values(kvs: Sequence[KeyValue], hex: bool = False) -> None:
    """Keys as a table."""
    as_table(
        ["key", "value", "create rev", "mod rev", "version", "lease"],
        [
            [
                text(kv.key, hex),
                text(kv.value, hex),
                kv.create_revision,
                kv.mod_revision,
                kv.version,
                f"{kv.lease:x}" if kv.lease else "",
            ]
            for kv in kvs
        ],
    )


def operation(answer: ResponseOp, hex: bool = False) -> dict[str, object]:
    """One answer within a transaction, for JSON."""
    match answer.WhichOneof("response"):
        case "response_range":
            found = answer.response_range
            return {"range": {"kvs": [key_value(kv, hex) for kv in found.kvs], "count": found.count}}
        case "response_put":
            return {"put": {}}
        case "response_delete_range":
            return {"delete": {"deleted": answer.response_delete_range.deleted}}
        case _:
            inner = answer.response_txn
            return {
                "txn": {
                    "succeeded": inner.succeeded,
                    "responses": [operation(one, hex) for one in inner.responses],
                }
            }


def size(count: int) -> str:
    """A number of bytes as people read it, such as 1.5 MB."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000 or unit == "GB":
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    raise AssertionError
