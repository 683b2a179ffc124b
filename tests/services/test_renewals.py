"""Keep-alives of many streams become few proposals."""

import asyncio
from collections.abc import Sequence

import pytest

from connect_kv.errors import OutcomeUnknown
from connect_kv.rpc.command_pb2 import CommandBatch, LeaseRenewed, Result
from connect_kv.services.executor import CommandExecutor
from connect_kv.services.renewals import Renewals
from tests.services.conftest import FakeNode


def renewed(batch: CommandBatch) -> Sequence[Result]:
    """Lease 13 is unknown."""
    ids = batch.commands[0].lease_renew.ids
    return [Result(lease_renew=LeaseRenewed(ttls=[0 if lease == 13 else 60 for lease in ids]))]


def renewals(node: FakeNode) -> Renewals:
    return Renewals(CommandExecutor(node, cluster_id=1, member_id=1, revision=lambda: 1, time_limit=1.0))


async def test_what_waits_together_travels_together() -> None:
    node = FakeNode(renewed)
    ours = renewals(node)
    ttls = await asyncio.gather(*(ours.renew(lease) for lease in (11, 12, 13, 11)))
    assert ttls == [60, 60, 0, 60]
    assert [list(batch.commands[0].lease_renew.ids) for batch in node.batches] == [[11, 12, 13]]
    assert await ours.renew(12) == 60
    assert len(node.batches) == 2


async def test_a_failed_batch_is_told_to_each_and_the_next_goes_on() -> None:
    node = FakeNode(renewed)
    ours = renewals(node)
    node.failures = [OutcomeUnknown()]
    results = await asyncio.gather(ours.renew(11), ours.renew(12), return_exceptions=True)
    assert all(isinstance(result, OutcomeUnknown) for result in results)
    assert await ours.renew(11) == 60


async def test_a_caller_that_leaves_does_not_disturb_the_others() -> None:
    ours = renewals(FakeNode(renewed))
    first = asyncio.create_task(ours.renew(11))
    second = asyncio.create_task(ours.renew(11))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == 60
    with pytest.raises(asyncio.CancelledError):
        await first
