"""Every recorded answer of etcd's gateway, but for those meant otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.gateway.replay import CASES, Replay

OTHERWISE = {
    "path: /v3/maintenance/downgrade": "not implemented",
    "path: /v3/lock/unlock": "the code of the call within",
    "error: UNKNOWN": "the code of the call within",
    "error: RESOURCE_EXHAUSTED": "no blank behind the alarm in Status, as 3.7",
    "stream: watch: bodies that create nothing": "what cannot be read is refused",
    "stream: keepalive: bad bodies": "what cannot be read is refused",
    "other: /debug with profiling": "there is no profile of Go here",
}
"""Cases whose answer differs on purpose; docs/api.md has the reasons."""

FORMAT = {
    "path: /v3/maintenance/hashkv": "the hash is of our own format",
    "path: /v3/maintenance/snapshot": "the file is of our own format",
}
"""Cases whose answer depends on how a backup looks."""


@pytest.mark.parametrize("case", CASES["cases"], ids=lambda case: case["name"])
async def test_the_answer_is_etcds(case: dict[str, Any], tmp_path: Path) -> None:
    differences = await Replay(tmp_path).run(case)
    if case["name"] in FORMAT and differences:
        pytest.xfail(FORMAT[case["name"]])
    if case["name"] in OTHERWISE:
        assert differences, "no longer different: take it off the list"
    else:
        assert not differences, "\n".join(differences)
