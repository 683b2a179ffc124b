"""Draws a history as an SVG timeline: a row for each client, a bar for each call."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from html import escape
from itertools import accumulate

from connect_kv.testing.checker.history import Operation
from connect_kv.testing.checker.linearizability import CheckResult, Model

__all__ = ["draw", "draw_history"]

ROW = 34
LEFT = 110
RIGHT = 30
TOP = 26
NOTE = 18
COLUMN = 40.0
CHARACTER, NOTE_CHARACTER = 7.3, 6.6

STYLE = (
    "text{font:12px ui-monospace,Menlo,Consolas,monospace;fill:#1f2933}"
    ".title{font:600 14px system-ui,sans-serif}.note{font:12px system-ui,sans-serif;fill:#52606d}"
    ".bar{fill:#cfe3f7;stroke:#3e7cb1}.last{fill:#f9d0d0;stroke:#c53030;stroke-width:2}"
    ".unknown{fill:#f3ead2;stroke:#a98b3c;stroke-dasharray:4 3}.grid{stroke:#e4e7eb}"
    ".context{fill:#eef0f2;stroke:#9aa5b1}.cut{stroke:#52606d;stroke-width:2;stroke-dasharray:2 3}"
)


def draw(model: Model, outcome: CheckResult, *, title: str = "Not linearizable") -> str:
    """The counter-example of a violation. The call whose answer fits no order is the marked one."""
    shown = outcome.shown
    assert shown is not None, "only a violation can be drawn"
    which = "no order of the coloured calls explains" if len(shown.operations) > 1 else "nothing explains"
    notes = [f"{which} the answer in red"]
    if outcome.partition is not None:
        notes[0] = f"{outcome.partition!r}: {notes[0]}"
    if shown.cut is not None:
        states = " or ".join(model.describe_state(state) for state in shown.before)
        notes.append(f"what returned before the dotted line leaves, in whatever order: {states}")
    if shown.context:
        notes.append("grey: the last of the other calls; they do not explain it, whenever they take effect")
    if shown.left_out:
        notes.append(f"not shown: {shown.left_out} calls")
    return draw_history(
        model, shown.operations, title=title, notes=notes, context=shown.context, cut=shown.cut
    )


def draw_history(
    model: Model,
    operations: Sequence[Operation],
    *,
    title: str,
    notes: Sequence[str] = (),
    context: Sequence[Operation] = (),
    cut: float | None = None,
) -> str:
    """Any history; of those answered, the last to return is marked. `context` is drawn in grey."""
    last = max((one for one in operations if one.known), key=lambda one: one.returned, default=None)
    everything = sorted([*context, *operations], key=lambda one: one.called)
    columns = _Columns(model, everything)
    clients = list(dict.fromkeys(one.client for one in everything))
    top = TOP + NOTE * len(notes) + 10
    bottom = top + ROW * len(clients) + 8
    width = max(columns.end + RIGHT, *(24 + len(note) * NOTE_CHARACTER for note in (title, *notes)))
    height = bottom + 26
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" role="img"><style>{STYLE}</style>'
        f'<rect width="100%" height="100%" fill="white"/>'
        f'<text class="title" x="12" y="22">{escape(title)}</text>'
    ]
    for number, note in enumerate(notes):
        parts.append(f'<text class="note" x="12" y="{TOP + NOTE * (number + 1) - 3}">{escape(note)}</text>')
    parts += columns.grid(top, bottom)
    if cut is not None:
        x = columns.after(cut)
        parts.append(f'<line class="cut" x1="{x:.1f}" x2="{x:.1f}" y1="{top - 6}" y2="{bottom}"/>')
    for row, client in enumerate(clients):
        name = ".".join(map(str, client)) if isinstance(client, tuple) else str(client)
        parts.append(f'<text x="12" y="{top + ROW * row + 21}">{escape(name)}</text>')
    grey = {id(one) for one in context}
    for one in everything:
        kind = "bar" if one.known else "unknown"
        if one is last or id(one) in grey:
            kind = "last" if one is last else "context"
        parts.append(columns.bar(one, kind, top + ROW * clients.index(one.client) + 4))
    return "".join(parts) + "</svg>"


class _Columns:
    """Where each moment is. Between two is as much room as labels need: what matters is the order."""

    def __init__(self, model: Model, operations: Sequence[Operation]) -> None:
        self._model = model
        moments = {one.called for one in operations} | {one.returned for one in operations if one.known}
        self._moments = sorted(moments)
        self._number = {moment: number for number, moment in enumerate(self._moments)}
        widths = [COLUMN] * len(self._moments)
        for one in sorted(operations, key=lambda one: self._span(one)[1] - self._span(one)[0]):
            first, end = self._span(one)
            missing = len(self.label(one)) * CHARACTER + 16 - sum(widths[first:end])
            for number in range(first, end):
                widths[number] += max(0.0, missing) / (end - first)
        self._x = [LEFT, *accumulate(widths, initial=LEFT)][1:]

    @property
    def end(self) -> float:
        """The right end."""
        return self._x[-1]

    def label(self, operation: Operation) -> str:
        """What is written into its bar."""
        return self._model.describe(operation.input, operation.output, operation.known)

    def after(self, moment: float) -> float:
        """Just behind that moment, which need not be one of the columns."""
        number = bisect_right(self._moments, moment)
        return self._x[number] - COLUMN / 4 if number else LEFT - COLUMN / 4

    def grid(self, top: int, bottom: int) -> list[str]:
        """A line for each moment, and the time where there is room for it."""
        parts, free = [], 0.0
        for moment, x in zip(self._moments, self._x, strict=False):
            parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>')
            if x >= free:
                parts.append(f'<text class="note" x="{x:.1f}" y="{bottom + 16}">{moment:.3f}</text>')
                free = x + 60
        return parts

    def bar(self, operation: Operation, kind: str, y: int) -> str:
        """From its call to its return, or to the end of the drawing."""
        first, end = self._span(operation)
        x, label = self._x[first], escape(self.label(operation))
        return (
            f'<rect class="{kind}" x="{x:.1f}" y="{y}" width="{self._x[end] - x - 4:.1f}" '
            f'height="{ROW - 8}" rx="4"><title>{label}</title></rect>'
            f'<text x="{x + 6:.1f}" y="{y + 17}">{label}</text>'
        )

    def _span(self, operation: Operation) -> tuple[int, int]:
        """The columns ``[first, end)`` of its bar: at least one."""
        first = self._number[operation.called]
        end = self._number[operation.returned] if operation.known else len(self._moments)
        return first, max(end, first + 1)
