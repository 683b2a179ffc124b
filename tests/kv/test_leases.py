"""The replicated table of leases."""

from connect_kv.kv.layout import LEASE_KEYS, LEASE_KEYS_END
from connect_kv.rpc.command_pb2 import Command, LeaseExpire, LeaseRenew, Result
from connect_kv.rpc.kv_pb2 import TxnRequest
from tests.kv.conftest import SECOND, Kv, delete_op, put_op


def revoke(kv: Kv, lease: int) -> Result:
    command = Command()
    command.lease_revoke.ID = lease
    return kv.apply(command)[0]


def renew(kv: Kv, *leases: int) -> list[int]:
    return list(kv.apply(Command(lease_renew=LeaseRenew(ids=leases)))[0].lease_renew.ttls)


def expire(kv: Kv, *items: tuple[int, int]) -> list[int]:
    named = [LeaseExpire.Item(id=lease, renewal=renewal) for lease, renewal in items]
    return list(kv.apply(Command(lease_expire=LeaseExpire(items=named)))[0].lease_expire.ids)


def test_a_grant_makes_no_revision_and_raises_short_times(kv: Kv) -> None:
    for lease, ttl, real in ((1, 10, 10), (2, 1, 2), (3, 0, 2), (4, -5, 2)):
        granted = kv.grant(lease, ttl).lease_grant
        assert (granted.ID, granted.TTL, granted.header.revision) == (lease, real, 1)


def test_a_grant_without_an_id_gets_a_positive_unused_one(kv: Kv) -> None:
    chosen = [kv.grant(0).lease_grant.ID for _ in range(100)]
    assert len(set(chosen)) == 100
    assert min(chosen) > 0


def test_granting_twice_and_too_long_is_refused(kv: Kv) -> None:
    kv.grant(1)
    twice, long = kv.grant(1).failure, kv.grant(2, 9_000_000_001).failure
    assert (twice.code, twice.message) == (9, "etcdserver: lease already exists")
    assert (long.code, long.message) == (11, "etcdserver: too large lease TTL")


async def test_a_revoke_deletes_all_keys_in_one_revision(kv: Kv) -> None:
    kv.grant(1)
    for key in (b"b", b"a", b"c"):
        kv.put(key, lease=1)
    kv.put(b"free")
    assert revoke(kv, 1).lease_revoke.header.revision == 6
    assert [item.key for item in (await kv.get(b"\0", b"\0")).kvs] == [b"free"]
    assert revoke(kv, 1).failure.message == "etcdserver: requested lease not found"
    assert kv.put(b"d").header.revision == 7


def test_a_revoke_without_keys_makes_no_revision(kv: Kv) -> None:
    kv.grant(1)
    assert revoke(kv, 1).lease_revoke.header.revision == 1


async def test_a_put_moves_the_key_and_a_delete_detaches_it(kv: Kv) -> None:
    kv.grant(1)
    kv.grant(-2)
    kv.put(b"a", lease=1)
    kv.put(b"b", lease=1)
    kv.put(b"a", lease=-2)
    assert await kv.machine.lease_keys(1) == [b"b"]
    assert await kv.machine.lease_keys(-2) == [b"a"]
    kv.txn(TxnRequest(success=[put_op(b"b"), delete_op(b"a")]))
    assert list(kv.engine.iterate(LEASE_KEYS, LEASE_KEYS_END)) == []
    revoke(kv, 1)
    assert (await kv.get(b"b")).count == 1


def test_a_renewal_answers_the_ttl_or_zero(kv: Kv) -> None:
    kv.grant(1, 7)
    kv.grant(2, 9)
    assert renew(kv, 1, 99, 2) == [7, 0, 9]


async def test_an_expiry_does_nothing_if_a_later_renewal_was_applied(kv: Kv) -> None:
    kv.grant(1)
    kv.put(b"a", lease=1)
    seen = kv.machine.leases.get(1)
    assert seen is not None
    renewal = seen.renewal
    renew(kv, 1)
    assert expire(kv, (1, renewal), (99, 5)) == []
    assert (await kv.get(b"a")).count == 1
    assert expire(kv, (1, kv.index)) == [1]
    assert (await kv.get(b"a")).count == 0


def test_each_expired_lease_with_keys_is_a_revision_of_its_own(kv: Kv) -> None:
    for lease in (1, 2, 3):
        kv.grant(lease)
    kv.put(b"a", lease=1)
    kv.put(b"b", lease=1)
    kv.put(b"c", lease=2)
    assert expire(kv, (1, kv.index), (2, kv.index), (3, kv.index)) == [1, 2, 3]
    assert kv.machine.revision == 6


async def test_the_table_survives_a_restart(kv: Kv) -> None:
    kv.time = 5 * SECOND
    kv.grant(1, 7)
    kv.grant(-1, 9)
    kv.put(b"a", lease=-1)
    kv.restart()
    lease = kv.machine.leases.get(-1)
    assert lease is not None
    assert (lease.ttl, lease.renewal, lease.renewed_at) == (9, 2, 5 * SECOND)
    assert kv.machine.leases.by_expiry() == [1, -1]
    assert await kv.machine.lease_keys(-1) == [b"a"]


def test_while_space_is_short_only_what_needs_none_works(kv: Kv) -> None:
    kv.put(b"a")
    kv.machine.no_space = True
    text = "etcdserver: mvcc: database space exceeded"
    assert kv.grant(1).failure.message == text
    assert kv.txn(TxnRequest(failure=[put_op(b"a")])).failure.message == text
    assert not kv.txn(TxnRequest(success=[delete_op(b"b")])).HasField("failure")
    assert kv.delete(b"a") == 1
    assert not kv.compact(2).HasField("failure")
    kv.machine.no_space = False
    assert kv.grant(1).lease_grant.ID == 1
