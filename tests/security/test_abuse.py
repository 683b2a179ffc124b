"""What abuses a member costs it bounded memory, and everybody else is served: small forms of long runs.

``python -m tests.figures.abuse`` makes those, with what they do to the time of others' puts
(docs/verification.md); here the machine may be busy, so that only what is bounded is looked at.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.figures.abuse import attack

pytestmark = pytest.mark.cluster


@pytest.mark.parametrize(
    ("kind", "count", "seconds", "most"),
    [
        ("half_open", 3000, 8, 80),
        ("wrong_logins", 20_000, 20, 60),
        ("watchers", 20, 8, 250),
        ("answers", 10, 8, 450),
    ],
)
async def test_a_member_that_is_abused_serves_others(
    tmp_path: Path, kind: str, count: int, seconds: float, most: float
) -> None:
    outcome = await attack(tmp_path, kind, count, seconds, quiet=1)
    assert not outcome.failed
    assert outcome.memory["at most"] - outcome.memory["before"] < most, outcome
    assert outcome.p99["while"] < 5000, outcome
