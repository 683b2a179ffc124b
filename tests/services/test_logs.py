"""Log lines: one per event, its values as fields, and none for a request."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

import connect_kv
from connect_kv.errors import Refused
from connect_kv.rpc import kv_pb2, lease_pb2
from connect_kv.server import logs
from connect_kv.server.logs import JsonFormatter, TextFormatter
from tests.services.cluster import Member, configs, running
from tests.services.conftest import until

OF_A_BUSY_MACHINE = ("heartbeats leave late", "apply is slow", "the log's disk is slow")
"""What a member may say at any time of the machine it runs on."""


def lines(formatter: logging.Formatter) -> str:
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(formatter)
    logger = logging.getLogger("connect_kv.tests.logs")
    logger.propagate = False
    logger.handlers[:] = [handler]
    logger.setLevel("INFO")
    logger.info("became leader", extra={"term": 3, "address": "a b"})
    return out.getvalue()


def test_text_has_one_line_with_fields() -> None:
    (line,) = lines(TextFormatter("n1")).splitlines()
    assert line.endswith('INFO n1 became leader term=3 address="a b"')


def test_json_has_one_object_per_line() -> None:
    line = json.loads(lines(JsonFormatter("n1")))
    assert (line["message"], line["term"], line["node"], line["level"]) == ("became leader", 3, "n1", "info")


@contextmanager
def configured(log_format: str, level: str = "info") -> Iterator[io.StringIO]:
    """As `connect-kv serve` sets it up."""
    logger, out = logging.getLogger("connect_kv"), io.StringIO()
    before = (logger.handlers[:], logger.level, logger.propagate)
    logs.configure(log_format, level, "n1", out)
    try:
        yield out
    finally:
        logger.handlers[:], logger.level, logger.propagate = before


def test_libraries_write_in_the_same_form_unless_the_program_has_its_own_handlers() -> None:
    everything = logging.getLogger()
    before = everything.handlers[:]
    try:
        everything.handlers[:] = []
        with configured("json") as out:
            logging.getLogger("grpc._cython.cygrpc").error("from a library")
            logging.getLogger("grpc").info("not worth a line")
        (line,) = map(json.loads, out.getvalue().splitlines())
        assert (line["logger"], line["message"]) == ("grpc._cython.cygrpc", "from a library")
        own = logging.NullHandler()
        everything.handlers[:] = [own]
        with configured("json"):
            assert everything.handlers == [own]
    finally:
        everything.handlers[:] = before


def in_text(out: str) -> list[str]:
    """The messages of lines with time, level and node before them."""
    found = []
    for line in out.splitlines():
        moment, level, node, message = line.split(" ", 3)
        assert moment.endswith("Z")
        assert level in ("INFO", "WARNING")
        assert node == "n1"
        found.append(message)
    return found


def in_json(out: str) -> list[str]:
    objects = [json.loads(line) for line in out.splitlines()]
    assert all({"time", "level", "node", "logger", "message"} <= one.keys() for one in objects)
    return [one["message"] for one in objects]


@pytest.mark.parametrize(("log_format", "read"), [("text", in_text), ("json", in_json)])
async def test_a_member_says_what_happens_to_it_and_nothing_of_its_requests(
    tmp_path: Path, log_format: str, read: Callable[[str], list[str]]
) -> None:
    with configured(log_format) as out:
        async with running(configs(tmp_path, 1)) as (only,):
            started = read(out.getvalue())
            for message in ("this member leads", "serving"):
                assert [one.startswith(message) for one in started].count(True) == 1
            for session in (True, False):
                await requests(only, session=session)
            said = [one for one in read(out.getvalue()) if not one.startswith(OF_A_BUSY_MACHINE)]
            assert said == [one for one in started if not one.startswith(OF_A_BUSY_MACHINE)]


async def requests(member: Member, *, session: bool) -> None:
    """Of every kind, those that are refused too."""
    address = member.server.client_address
    async with connect_kv.connect(address, session=session) as client:
        async with client.watch("k", prefix=True) as watch:
            lease, _ = await client.grant_lease(60)
            for number in range(20):
                await client.put(f"k{number}", "v", lease=lease)
            assert await anext(aiter(watch))
        await client.get_prefix("k")
        with pytest.raises(Refused):
            await client.put("", "v")
        await client.revoke_lease(lease)
        await client.compact((await client.put("k", "v")).header.revision)
        await client.status()
        await client.cluster.members()
        async with client.lock("name"):
            pass
    with pytest.raises(grpc.aio.AioRpcError):
        await member.call("/etcdserverpb.KV/Range", kv_pb2.RangeRequest(), kv_pb2.RangeResponse)
    revoke = lease_pb2.LeaseRevokeRequest(ID=1)
    with pytest.raises(grpc.aio.AioRpcError):
        await member.call("/etcdserverpb.Lease/LeaseRevoke", revoke, lease_pb2.LeaseRevokeResponse)
    applied = member.server.node.status().raft.commit_index
    await until(lambda: member.server.node.last_applied >= applied)
