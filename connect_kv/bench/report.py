"""What a run says at its end."""

from __future__ import annotations

from typing import NamedTuple

from connect_kv.bench.load import Outcome

PERCENTILES = (50.0, 90.0, 99.0, 99.9)


class Check(NamedTuple):
    """Acknowledged writes against the revisions they made."""

    acknowledged: int
    revisions: int

    @property
    def holds(self) -> bool:
        """Nothing acknowledged is missing. There may be more: a write whose answer was lost."""
        return self.revisions >= self.acknowledged


def as_dict(workload: str, outcome: Outcome, check: Check | None) -> dict[str, object]:
    """For programs; times in milliseconds."""
    latencies = outcome.latencies
    found: dict[str, object] = {
        "workload": workload,
        "operations": latencies.count,
        "seconds": round(outcome.seconds, 3),
        "per_second": round(outcome.rate, 1),
        "latency_ms": {
            "mean": round(latencies.mean * 1e3, 3),
            **{f"p{percent:g}": round(latencies.percentile(percent) * 1e3, 3) for percent in PERCENTILES},
            "max": round(latencies.longest * 1e3, 3),
        },
        "errors": dict(outcome.errors),
    }
    if check is not None:
        found["acknowledged_writes"] = check.acknowledged
        found["revisions_made"] = check.revisions
    return found


def as_text(workload: str, outcome: Outcome, check: Check | None) -> str:
    """For people."""
    latencies = outcome.latencies
    percentiles = ", ".join(
        f"p{percent:g} {latencies.percentile(percent) * 1e3:.2f}" for percent in PERCENTILES
    )
    lines = [
        f"{workload}: {latencies.count:,} operations in {outcome.seconds:.2f} s, {outcome.rate:,.0f}/s",
        f"latency, ms: mean {latencies.mean * 1e3:.2f}, {percentiles}, longest {latencies.longest * 1e3:.2f}",
    ]
    lines += [f"errors: {count:,} x {text}" for text, count in outcome.errors.most_common()]
    if check is not None:
        word = "all there" if check.holds else "ACKNOWLEDGED WRITES ARE MISSING"
        lines.append(
            f"check: {check.acknowledged:,} acknowledged, {check.revisions:,} revisions made: {word}"
        )
    return "\n".join(lines)
