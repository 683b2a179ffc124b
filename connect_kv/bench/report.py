"""What a run says at its end."""

from __future__ import annotations

from typing import NamedTuple

from connect_kv.bench.load import LoadResult

PERCENTILES = (50.0, 90.0, 99.0, 99.9)


class Check(NamedTuple):
    """Acknowledged writes against the revisions they made."""

    acknowledged: int
    revisions: int
    exact: bool = False
    """Whether every write was to be executed once, and none failed: then there may not be more either.
    Otherwise there may be, of a write whose answer was lost."""

    @property
    def holds(self) -> bool:
        """Nothing acknowledged is missing, and nothing was done twice."""
        return self.revisions == self.acknowledged or (self.revisions > self.acknowledged and not self.exact)

    @property
    def verdict(self) -> str:
        """In words, whether what was measured can be believed."""
        if self.holds:
            return "all there"
        if self.revisions < self.acknowledged:
            return "ACKNOWLEDGED WRITES ARE MISSING"
        return "MORE REVISIONS THAN WRITES: some were executed twice, unless others write here too"


def as_dict(workload: str, outcome: LoadResult, check: Check | None) -> dict[str, object]:
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


def as_text(workload: str, outcome: LoadResult, check: Check | None) -> str:
    """The outcome as lines for people."""
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
        lines.append(
            f"check: {check.acknowledged:,} acknowledged, {check.revisions:,} revisions made: {check.verdict}"
        )
    return "\n".join(lines)
