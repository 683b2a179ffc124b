"""Alarms in the log of every member: one line when it begins, one when it ends."""

from __future__ import annotations

import logging

import pytest

from connect_kv.rpc.maintenance_pb2 import NOSPACE, AlarmRequest, AlarmType
from connect_kv.server.logs import fields_of
from connect_kv.statemachine.cluster import ClusterTable
from connect_kv.storage.overlay import Overlay
from tests.kv.conftest import new_engine


def test_an_alarm_is_told_when_it_begins_and_when_it_ends(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "connect_kv")
    engine = new_engine()
    table, overlay = ClusterTable(), Overlay(engine)
    for action in ("GET", "DEACTIVATE", "ACTIVATE", "ACTIVATE", "DEACTIVATE", "DEACTIVATE"):
        request = AlarmRequest(memberID=0xAB, alarm=NOSPACE)
        request.action = AlarmRequest.AlarmAction.Value(action)
        table.alarm(request, overlay)
    told = [(record.levelname, record.getMessage(), fields_of(record)) for record in caplog.records]
    fields = {"alarm": "NOSPACE", "member": "ab"}
    assert told == [("WARNING", "an alarm is on", fields), ("INFO", "an alarm was ended", fields)]
    engine.close()


def test_an_alarm_of_a_newer_version_has_a_number(caplog: pytest.LogCaptureFixture) -> None:
    engine = new_engine()
    newer = AlarmRequest(action=AlarmRequest.ACTIVATE, memberID=1, alarm=AlarmType.ValueType(77))
    ClusterTable().alarm(newer, Overlay(engine))
    assert fields_of(caplog.records[0]) == {"alarm": "77", "member": "1"}
    engine.close()
