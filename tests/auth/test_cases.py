"""Every recorded answer of etcd on users, roles, tokens and rights, but for those meant otherwise."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.auth.replay import CASES, Keys, Replay

OTHERWISE = {
    "matrix: Snapshot": "the backup is a file of our own",
    "matrix: Downgrade VALIDATE": "not implemented, for who may ask",
    "watch: the permission is revoked during the watch": "the watch ends",
    "watch: the user is deleted during the watch": "the watch ends",
    "watch: authentication is switched on during the watch": "the watch ends",
    "jwt: an auth change makes older tokens stale": "stale for management, too",
}
"""Cases whose answer differs on purpose; docs/api.md has the reasons."""

SLOW = ("expires", "renew")
EVERY = os.environ.get("CONNECT_KV_FULL", "") == "1"


def chosen() -> list[dict[str, Any]]:
    """All of them, or those that take no seconds of waiting."""
    return [one for one in CASES["cases"] if EVERY or not any(word in one["name"] for word in SLOW)]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys.made(tmp_path_factory.mktemp("keys"))


@pytest.mark.parametrize("case", chosen(), ids=lambda case: case["name"])
async def test_the_answer_is_etcds(case: dict[str, Any], keys: Keys, tmp_path: Path) -> None:
    differences = await Replay(tmp_path, keys).run(case)
    if case["name"] in OTHERWISE:
        assert differences, "no longer different: take it off the list"
    else:
        assert not differences, "\n".join(differences)
