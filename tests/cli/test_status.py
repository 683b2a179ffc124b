"""What `status` makes of what members say of themselves and of each other."""

from __future__ import annotations

import io
import sys

import pytest

from connect_kv.cli import status
from connect_kv.cli.status import Row
from connect_kv.rpc.kv_pb2 import ResponseHeader
from connect_kv.rpc.maintenance_pb2 import MemberContact, StatusResponse

IDS = [0xAAD1A0F64254D381, 0x32C788824EE3D4F8, 0x5E2AA8136D86243C]


def answered(
    place: int,
    *,
    leader: int = 0,
    contacts: dict[int, tuple[bool, str]] | None = None,
    errors: tuple[str, ...] = (),
) -> Row:
    found = StatusResponse(
        header=ResponseHeader(member_id=IDS[place], cluster_id=0x30F2DDF542874341),
        version="3.6.0",
        connectKvVersion="0.1.0",
        leader=IDS[leader] if leader >= 0 else 0,
        raftTerm=123,
        raftIndex=123_456_789,
        raftAppliedIndex=123_456_700,
        dbSize=987_654_321,
        errors=errors,
        contacts=[
            MemberContact(memberID=IDS[other], answers=answers, contact=words)
            for other, (answers, words) in (contacts or {}).items()
        ],
    )
    return Row(f"127.0.0.1:{place + 1}2379", found, name=f"n{place + 1}", id=IDS[place])


def silent(place: int) -> Row:
    return Row(f"n{place + 1}:2379", None, "n3:2379 cannot be resolved", name=f"n{place + 1}", id=IDS[place])


def shown(rows: list[Row], monkeypatch: pytest.MonkeyPatch) -> str:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    status._table(rows, 123_456_789)
    return out.getvalue()


def test_a_table_of_three_fits_in_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown([answered(0), answered(1), silent(2)], monkeypatch)
    assert max(map(len, text.splitlines())) <= 80
    assert "0.1.0" in text
    assert "API of etcd 3.6.0" in text
    assert all(f"{one:x}" in text for one in IDS)


ANSWERS, SILENT = (True, "answers"), (False, "does not answer")


@pytest.mark.parametrize(
    ("rows", "healthy"),
    [
        # In containers: from here only one can be reached, and it leads.
        ([answered(0, contacts={1: ANSWERS, 2: ANSWERS}), silent(1), silent(2)], [True, True, True]),
        ([answered(0, contacts={1: ANSWERS, 2: SILENT}), silent(1), silent(2)], [True, True, False]),
        # A follower knows of its leader, and what it knows of another follower may be old.
        ([silent(0), answered(1, contacts={0: ANSWERS, 2: ANSWERS}), silent(2)], [True, True, False]),
        ([answered(0, leader=-1, errors=("etcdserver: no leader",)), answered(1)], [False, True]),
        ([answered(0, errors=("memberID:1 alarm:NOSPACE",))], [False]),
        ([silent(0)], [False]),
    ],
)
def test_members_are_healthy_by_what_they_say_of_each_other(rows: list[Row], healthy: list[bool]) -> None:
    assert [row.healthy for row in status._with_hearsay(rows)] == healthy


def test_who_said_what_stands_below_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = status._with_hearsay([answered(0, contacts={1: SILENT}), silent(1)])
    text = shown(rows, monkeypatch)
    assert "n2: n1 says: does not answer" in text
    assert "n2: from here: n3:2379 cannot be resolved" in text
