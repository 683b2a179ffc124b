"""Draws a history as an SVG timeline: a row for each client, a bar for each call."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from html import escape

from connect_kv.sim.history import Operation
from connect_kv.sim.linearizability import Model, Outcome

ROW = 34
LEFT = 110
RIGHT = 30
TOP = 58
MINIMUM_BAR = 6.0
CHARACTER = 6.4

STYLE = (
    "text{font:12px ui-monospace,Menlo,Consolas,monospace;fill:#1f2933}"
    ".title{font:600 14px system-ui,sans-serif}.note{font:12px system-ui,sans-serif;fill:#52606d}"
    ".bar{fill:#cfe3f7;stroke:#3e7cb1}.last{fill:#f9d0d0;stroke:#c53030;stroke-width:2}"
    ".unknown{fill:#f3ead2;stroke:#a98b3c;stroke-dasharray:4 3}.grid{stroke:#e4e7eb}"
)


def draw(model: Model, outcome: Outcome, *, title: str = "Not linearizable") -> str:
    """The counter-example of a violation. The call whose answer fits no order is the marked one."""
    operations = outcome.counterexample
    note = f"no order of these {len(operations)} calls explains the marked answer"
    if outcome.partition is not None:
        note = f"{outcome.partition!r}: {note}"
    return draw_history(model, operations, title=title, note=note)


def draw_history(model: Model, operations: Sequence[Operation], *, title: str, note: str = "") -> str:
    """Any history; of those answered, the last to return is marked."""
    known = [one for one in operations if one.known]
    last = max(known, key=lambda one: one.returned, default=None)
    clients = list(dict.fromkeys(one.client for one in operations))
    # Moments are drawn at equal distances: what matters is their order, and labels need room.
    moments = sorted({one.called for one in operations} | {one.returned for one in known})
    step = max(
        [40.0]
        + [(len(_label(model, one)) * CHARACTER + 14) / max(1, _span(one, moments)) for one in operations]
    )
    width = LEFT + step * len(moments) + RIGHT
    height = TOP + ROW * len(clients) + 34
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" role="img"><style>{STYLE}</style>'
        f'<rect width="100%" height="100%" fill="white"/>'
        f'<text class="title" x="12" y="22">{escape(title)}</text>'
        f'<text class="note" x="12" y="41">{escape(note)}</text>'
    ]
    for number, moment in enumerate(moments):
        x = LEFT + step * number
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{height - 26}"/>')
        if number % max(1, len(moments) // 12) == 0:
            parts.append(f'<text class="note" x="{x:.1f}" y="{height - 10}">{moment:.3f}</text>')
    for row, client in enumerate(clients):
        parts.append(f'<text x="12" y="{TOP + ROW * row + 21}">{escape(str(client))}</text>')
    parts += [_bar(model, one, one is last, clients, moments, step) for one in operations]
    return "".join(parts) + "</svg>"


def _span(operation: Operation, moments: Sequence[float]) -> int:
    end = moments.index(operation.returned) if operation.known else len(moments)
    return end - moments.index(operation.called)


def _label(model: Model, operation: Operation) -> str:
    return model.describe(operation.input, operation.output, operation.known)


def _bar(
    model: Model,
    operation: Operation,
    last: bool,
    clients: Sequence[Hashable],
    moments: Sequence[float],
    step: float,
) -> str:
    x = LEFT + step * moments.index(operation.called)
    y = TOP + ROW * clients.index(operation.client) + 4
    width = max(MINIMUM_BAR, step * _span(operation, moments) - 4)
    kind = "last" if last else "bar" if operation.known else "unknown"
    label = escape(_label(model, operation))
    return (
        f'<rect class="{kind}" x="{x:.1f}" y="{y}" width="{width:.1f}" height="{ROW - 8}" rx="4">'
        f"<title>{label}</title></rect>"
        f'<text x="{x + 6:.1f}" y="{y + 17}">{label}</text>'
    )
