"""What an upgrade brings is possible once every member has it, and not before."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest

import connect_kv
from connect_kv.errors import Refused
from connect_kv.rpc.command_pb2 import Command, MemberPublish
from connect_kv.services.executor import field_number
from connect_kv.testing.processes import until
from tests.services.cluster import Member, configs, running

PUT = Command.PUT_FIELD_NUMBER


async def test_a_kind_is_proposed_once_all_members_have_said_that_they_know_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if puts were new, and one member of the version before."""
    async with running(configs(tmp_path, 3)) as members:
        last = members[-1].server
        old = last.host.cluster.members[last.node.identity.node_id]
        new = MemberPublish()
        new.CopyFrom(old)
        old = MemberPublish(id=new.id, name=new.name, client_urls=new.client_urls, highest_command=PUT - 1)

        for published, possible in ((old, False), (new, True)):
            await publish(members, published)
            with monkeypatch.context() as patched:
                patched.setattr("connect_kv.services.executor.FIRST_COMMANDS", PUT - 1)
                for member in members:
                    with nullcontext() if possible else pytest.raises(Refused, match="not capable"):
                        await put(member)


async def put(member: Member) -> None:
    async with connect_kv.connect(member.server.client_address, session=False) as client:
        await client.put("k", "v")


async def publish(members: list[Member], record: MemberPublish) -> None:
    """As that member would, and wait until all know."""
    executor = members[0].server.services.executor
    await executor.execute(field_number("member_publish"), record.SerializeToString())

    async def known() -> bool:
        return all(
            one.server.host.cluster.members[record.id].highest_command == record.highest_command
            for one in members
        )

    await until(known, 10, "all members to know")
