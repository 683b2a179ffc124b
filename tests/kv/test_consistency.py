"""A record changed behind the machine's back is found, whichever repeats the history it is."""

import asyncio
from collections.abc import Callable, Coroutine

import pytest

from connect_kv.kv import layout, revision
from connect_kv.rpc.kv_pb2 import TxnRequest
from connect_kv.statemachine.database import state_hash
from tests.kv.conftest import Kv, delete_op, put_op

Change = Callable[[Kv], None]


def fill(kv: Kv) -> None:
    kv.grant(7)
    for number in range(20):
        kv.put(b"k%02d" % number, b"first")
    for number in range(0, 20, 3):
        kv.put(b"k%02d" % number, b"second", lease=7)
    kv.delete(b"k04", b"k08")
    kv.put(b"k05", b"again")
    kv.txn(TxnRequest(success=[put_op(b"k\x00", b"zero"), put_op(b"k", b"x"), delete_op(b"k10")]))


def write(kv: Kv, key: bytes, value: bytes | None) -> None:
    kv.engine.batch({key: value}).write(sync=False)


def flip(kv: Kv, key: bytes) -> None:
    record = kv.engine.get(key)
    assert record is not None
    write(kv, key, record[:-1] + bytes([record[-1] ^ 1]))


def first(kv: Kv, space: bytes) -> bytes:
    key, _ = next(iter(kv.engine.iterate(space, bytes([space[0] + 1]))))
    return key


async def test_a_sound_state_has_no_difference_before_while_and_after_it_is_cleaned_up(kv: Kv) -> None:
    assert await kv.machine.difference() is None
    fill(kv)
    for _ in range(300):
        kv.put(b"many", b"v")
    assert await kv.machine.difference() is None
    kv.compact(kv.machine.revision - 1)
    assert await kv.machine.difference() is None
    kv.clean()
    assert await kv.machine.difference() is None


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda kv: flip(kv, layout.CURRENT + b"k01"), "b'k01' is not its current value"),
        (lambda kv: flip(kv, layout.CURRENT + b"k19"), "b'k19' is not its current value"),
        (lambda kv: write(kv, layout.CURRENT + b"k01", None), "b'k01' is not its current value"),
        (lambda kv: write(kv, layout.CURRENT + b"k19", None), "b'k19' is not its current value"),
        (lambda kv: write(kv, layout.CURRENT + b"k04", b""), "b'k05' is not its current value"),
        (lambda kv: write(kv, layout.CURRENT + b"z", b""), "b'z' has a current value and no change"),
        (lambda kv: flip(kv, first(kv, layout.INDEX)), "the index has other changes"),
        (lambda kv: write(kv, first(kv, layout.INDEX), None), "the index has other changes"),
        (lambda kv: write(kv, first(kv, layout.HISTORY), None), "the index has other changes"),
        (lambda kv: write(kv, layout.lease_keys_prefix(7) + b"k00", None), "leases have other keys"),
        (lambda kv: write(kv, layout.lease_keys_prefix(7) + b"k01", b""), "leases have other keys"),
        (lambda kv: set_state(kv, live=3), "keys, not 3"),
        (lambda kv: set_state(kv, indexed=3), "changes, not 3"),
    ],
)
async def test_one_record_changed_is_found(kv: Kv, change: Change, told: str) -> None:
    fill(kv)
    change(kv)
    found = await kv.machine.difference()
    assert found is not None
    assert told in found


def set_state(kv: Kv, **numbers: int) -> None:
    state = layout.StoreState.decode(kv.engine.get(layout.STATE))
    write(kv, layout.STATE, state._replace(**numbers).encode())


async def test_an_index_entry_moved_to_another_place_is_found(kv: Kv) -> None:
    """Also if history has no record there at all."""
    fill(kv)
    entry = first(kv, layout.INDEX)
    write(kv, entry, None)
    write(kv, entry[: -revision.SIZE] + revision.pack(999, 0), layout.PUT)
    assert await kv.machine.difference() is not None


@pytest.mark.parametrize(("keys", "size"), [(2000, 0), (40, 200_000)], ids=["many", "large"])
@pytest.mark.parametrize("what", ["difference", "hash_kv", "hash_history", "state_hash"])
async def test_others_run_while_many_or_large_records_are_looked_at(
    kv: Kv, keys: int, size: int, what: str
) -> None:
    for number in range(keys):
        kv.put(b"k%04d" % number, bytes(size))
    calls: dict[str, Callable[[], Coroutine[object, object, object]]] = {
        "difference": kv.machine.difference,
        "hash_kv": lambda: kv.machine.hash_kv(0),
        "hash_history": lambda: kv.machine.hash_history(0),
        "state_hash": lambda: state_hash(kv.engine),
    }
    looking = asyncio.create_task(calls[what]())
    turns = 0
    while not looking.done():
        await asyncio.sleep(0)
        turns += 1
    await looking
    assert turns > max(keys // 256, keys * size // (512 << 10))
