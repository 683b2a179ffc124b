"""A page that shows a chaos run: one file, nothing loaded from elsewhere."""

from __future__ import annotations

import platform
import sys
from html import escape

from chaos.charts import Drawing, longest_pause, percentile
from chaos.faults import FAULTS
from chaos.run import Result, Workload

STYLE = """
:root{--ink:#1c2733;--soft:#5d6b7a;--line:#e3e8ee;--page:#f6f8fa;--card:#fff;--good:#18794e;
--good-soft:#e6f4ec;--bad:#c62a2f;--bad-soft:#fdeaea;--process:#d9480f;--network:#7048c6;--disk:#0b7a75;
--blue:#2563b0;--sky:#cfe0f3;--amber:#f0b429;--rose:#e5484d;--grey:#9aa5b1}
@media (prefers-color-scheme:dark){:root{--ink:#e6ebf1;--soft:#9fb0c0;--line:#2c3846;--page:#11181f;
--card:#182129;--good:#4cc38a;--good-soft:#12351f;--bad:#ff8589;--bad-soft:#3f1619;--process:#ff8c52;
--network:#a58bf0;--disk:#3fc1b9;--blue:#5b9bea;--sky:#27425f;--amber:#d99a1c;--rose:#f16a6f;
--grey:#66727f}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
main{max-width:1264px;margin:0 auto;padding:28px 32px 48px}
h1{font-size:24px;margin:0 14px 0 0}
h2{font-size:17px;margin:0 0 12px}
header{display:flex;align-items:center;flex-wrap:wrap;margin-bottom:4px}
.verdict{font-weight:600;border-radius:999px;padding:4px 14px}
.verdict.good{color:var(--good);background:var(--good-soft)}
.verdict.bad{color:var(--bad);background:var(--bad-soft)}
.sub{color:var(--soft);margin:4px 0 20px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(130px,1fr));gap:12px;margin-bottom:18px}
.tile,.card{background:var(--card);border:1px solid var(--line);border-radius:10px}
.tile{padding:12px 16px}
.tile b{display:block;font-size:23px;line-height:1.25;font-variant-numeric:tabular-nums}
.tile span{color:var(--soft);font-size:13px}
.card{padding:18px 20px;margin-bottom:18px;overflow-x:auto}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th{font-weight:600;color:var(--soft);font-size:13px;text-align:left}
td,th{padding:6px 12px 6px 0;border-bottom:1px solid var(--line);vertical-align:top}
tr:last-child td{border-bottom:0}
.n{text-align:right;padding-right:28px}
.ok{color:var(--good);font-weight:600}
.violation,.unknown{color:var(--bad);font-weight:600}
.dot{display:inline-block;width:10px;height:10px;border-radius:3px;margin-right:8px}
.dot.process{background:var(--process)}
.dot.network{background:var(--network)}
.dot.disk{background:var(--disk)}
.soft{color:var(--soft)}
td:nth-child(2),td.n{white-space:nowrap}code{font:13px ui-monospace,Menlo,Consolas,monospace}
li{margin:4px 0;overflow-wrap:anywhere}
.card svg{display:block;max-width:100%;height:auto}
.charts text{font:12px system-ui,sans-serif;fill:var(--ink)}
.charts .title{font-size:14px;font-weight:600}
.charts .tick,.charts .lane{fill:var(--soft)}
.charts .label{fill:#fff;font-size:11px;paint-order:stroke;stroke:#0006;stroke-width:2px}
.charts .label.outside{fill:var(--ink);stroke:none}.charts .term{fill:#fff;font-size:11px}
.charts .grid{stroke:var(--line)}
.band{opacity:.07}
.band.process,.fault.process,.after.process{fill:var(--process)}
.band.network,.fault.network,.after.network{fill:var(--network)}
.band.disk,.fault.disk,.after.disk{fill:var(--disk)}
.after{opacity:.3}
.key.solid,.key.after{fill:var(--soft)}
.hatch{fill:#fff8}
.is-leader{fill:var(--blue)}
.is-follower{fill:var(--sky)}
.is-alone{fill:var(--amber)}
.is-silent{fill:var(--rose)}
.is-paused{fill:var(--network)}
.is-down{fill:var(--grey)}
.answered{fill:var(--blue);opacity:1}
.failed{fill:var(--rose)}
.curve{fill:none;stroke-width:1.6}
.curve.p50{stroke:var(--disk)}
.curve.p95{stroke:var(--amber)}
.curve.p99{stroke:var(--rose)}
.key.p50{fill:var(--disk)}
.key.p95{fill:var(--amber)}
.key.p99{fill:var(--rose)}
"""


def page(result: Result) -> str:
    """The whole page."""
    kind, word = ("good", "no violation") if result.ok else ("bad", f"{len(result.violations)} violations")
    if result.ok and result.undecided:
        kind, word = "bad", "undecided"
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>connect-kv: chaos</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<style>{STYLE}</style></head><body><main>",
        f'<header><h1>connect-kv under faults</h1><span class="verdict {kind}">{word}</span></header>',
        f'<p class="sub">Three nodes joined by {escape(result.network)}; '
        f"Python {platform.python_version()} on "
        f"{escape(platform.system())}. Seed {result.seed}.</p>",
        _tiles(result),
        f'<section class="card">{Drawing(result).svg()}</section>',
        _violations(result),
        f'<section class="card"><h2>What clients saw</h2>{_workloads(result)}</section>',
        f'<section class="card"><h2>Faults</h2>{_faults(result)}</section>',
        f'<section class="card"><h2>Again</h2><code>{escape(command(result))}</code>'
        '<p class="soft">The seed chooses faults, times and requests; threads and the network do as they '
        "like, so a repetition is similar, not the same.</p></section>",
        "</main></body></html>",
    ]
    return "\n".join(parts)


def command(result: Result) -> str:
    """What to type for a similar run."""
    kinds = "all" if len(result.kinds) == len(FAULTS) else ",".join(result.kinds)
    return f"scripts/chaos --faults {kinds} --seconds {result.seconds:g} --seed {result.seed}"


def _tiles(result: Result) -> str:
    answered = [one.ended - one.began for one in result.samples if one.ok]
    duration = max((one.ended for one in result.samples), default=0.0)
    terms = {look.term for look in result.looks if look.term}
    tiles = [
        (f"{len(result.faults)}", f"faults of {len({one.kind for one in result.faults})} kinds"),
        (f"{len(answered):,}", "calls answered"),
        (f"{len(answered) / max(duration, 1):,.0f}/s", f"over {duration:.0f} s"),
        (f"{(percentile(answered, 0.5) or 0) * 1000:.1f} ms", "median latency"),
        (f"{(percentile(answered, 0.99) or 0) * 1000:,.0f} ms", "99th percentile"),
        (f"{result.events:,}", "changes watched"),
        (f"{len(terms)}", "terms seen"),
    ]
    return (
        '<div class="tiles">'
        + "".join(f'<div class="tile"><b>{number}</b><span>{text}</span></div>' for number, text in tiles)
        + "</div>"
    )


def _violations(result: Result) -> str:
    if result.ok:
        return ""
    items = "".join(f"<li>{escape(text[:4000])}</li>" for text in result.violations)
    return f'<section class="card"><h2>Violations</h2><ul>{items}</ul>{"".join(result.drawings)}</section>'


def _workloads(result: Result) -> str:
    rows = "".join(_workload(one) for one in result.workloads)
    return (
        '<table><tr><th>Workload</th><th>Promise</th><th class="n">Calls</th><th class="n">Answered</th>'
        f"<th>Verdict</th><th></th></tr>{rows}</table>"
    )


PROMISES = {
    "registers": "reads, writes, compare-and-swap and deletes of a key happen in one order",
    "lists": "a command of a user machine runs exactly once",
    "bank": "transactions are atomic: the balances always add up",
    "lock": "one holder at a time, and fencing numbers grow",
    "leases": "none ends before its time, all end after it",
    "watches": "every change once, in order, whole, on every node",
}


def _workload(one: Workload) -> str:
    return (
        f"<tr><td>{escape(one.name)}</td><td>{PROMISES.get(one.name, '')}</td>"
        f'<td class="n">{one.calls:,}</td><td class="n">{one.answered:,}</td>'
        f'<td class="{one.verdict}">{one.verdict}</td><td class="soft">{escape(one.detail)}</td></tr>'
    )


def _faults(result: Result) -> str:
    rows = []
    for number, one in enumerate(result.faults, 1):
        pause = longest_pause(result.samples, one.began, one.recovered or one.ended)
        rows.append(
            f'<tr><td class="n">{one.began:.1f} s</td>'
            f'<td><span class="dot {FAULTS[one.kind].group}"></span>{number} {one.kind}</td>'
            f'<td>{escape(FAULTS[one.kind].text)}</td><td class="soft">{escape(one.note)}</td>'
            f'<td class="n">{one.ended - one.began:.1f} s</td><td class="n">{pause:.2f} s</td>'
            f'<td class="n">{max(one.recovered - one.ended, 0):.1f} s</td></tr>'
        )
    skipped = "".join(f"<p>Not done: {kind}, {escape(why)}.</p>" for kind, why in result.skipped.items())
    return (
        '<table><tr><th class="n">At</th><th>Fault</th><th></th><th>Whom</th><th class="n">Lasted</th>'
        '<th class="n">Longest pause</th><th class="n">All well after</th></tr>'
        f"{''.join(rows)}</table>{skipped}"
        '<p class="soft">Longest pause: the longest time from the fault until all was well in which not one '
        f"call of any client was answered.</p><!-- {escape(sys.version)} -->"
    )
