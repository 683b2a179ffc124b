"""The checker answers what a search through all orders answers, and is fast enough for long histories."""

import itertools
import random
import time
from collections.abc import Hashable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connect_kv.testing.checker import shrink as counterexample
from connect_kv.testing.checker.history import UNKNOWN, History, Operation, check_assumptions
from connect_kv.testing.checker.linearizability import Model, Verdict, check
from connect_kv.testing.checker.models import counter, lock, register, transactions
from connect_kv.testing.checker.timeline import draw


def op(
    client: int, input: tuple[object, ...], output: object, called: float, returned: float = UNKNOWN
) -> Operation:
    return Operation(client=client, input=input, output=output, called=called, returned=returned)


def allowed_by_brute_force(
    model: Model, operations: Sequence[Operation], before: Hashable | None = None
) -> bool:
    """Try every order of every choice of unanswered operations."""
    return bool(states_by_brute_force(model, operations, before))


def states_by_brute_force(
    model: Model, operations: Sequence[Operation], before: Hashable | None = None
) -> set[Hashable]:
    """The states that all those orders leave."""
    found = set()
    known = [one for one in operations if one.known]
    open_ended = [one for one in operations if not one.known]
    for count in range(len(open_ended) + 1):
        for chosen in itertools.combinations(open_ended, count):
            for order in itertools.permutations([*known, *chosen]):
                if any(b.returned < a.called for i, a in enumerate(order) for b in order[i + 1 :]):
                    continue
                state = model.init() if before is None else before
                for one in order:
                    following = model.step(state, one.input, one.output, one.known)
                    if following is None:
                        break
                    state = following
                else:
                    found.add(state)
    return found


@st.composite
def small_histories(draw: st.DrawFn) -> list[Operation]:
    operations = []
    for client in range(draw(st.integers(1, 3))):
        now = 0
        for _ in range(draw(st.integers(1, 2))):
            now += draw(st.integers(1, 4))
            called, now = now, now + draw(st.integers(0, 5))
            returned = UNKNOWN if draw(st.booleans()) and draw(st.booleans()) else float(now)
            kind = draw(st.sampled_from(["read", "write", "cas"]))
            value = draw(st.integers(1, 2))
            match kind:
                case "read":
                    operations.append(
                        op(client, ("read", "x"), draw(st.sampled_from([None, 1, 2])), called, returned)
                    )
                case "write":
                    operations.append(op(client, ("write", "x", value), None, called, returned))
                case _:
                    operations.append(
                        op(client, ("cas", "x", value, 3 - value), draw(st.booleans()), called, returned)
                    )
            if returned == UNKNOWN:
                break
    return operations


@pytest.mark.long
@given(small_histories())
@settings(max_examples=400, deadline=None, derandomize=True)
def test_agrees_with_a_search_through_all_orders(operations: list[Operation]) -> None:
    verdict = check(register, operations).verdict
    assert (verdict is Verdict.OK) == allowed_by_brute_force(register, operations)


@given(small_histories())
@settings(max_examples=300, deadline=None, derandomize=True)
def test_a_counterexample_is_a_violation_itself(operations: list[Operation]) -> None:
    outcome = check(register, operations)
    if outcome.verdict is Verdict.VIOLATION:
        assert not allowed_by_brute_force(register, outcome.counterexample)
        assert len(outcome.counterexample) <= len(operations)


@given(small_histories())
@settings(max_examples=300, deadline=None, derandomize=True)
def test_a_beginning_that_is_cut_off_leaves_all_states_it_can(operations: list[Operation]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counterexample, "READABLE", 0)
        shown = check(register, operations).shown
    if shown is None:
        return
    for state in shown.before:
        assert not allowed_by_brute_force(register, shown.operations, state)
    if shown.cut is not None:
        begun = [one for one in operations if one.called <= shown.cut]
        returned = [one for one in begun if one.returned <= shown.cut]
        under_way = [replace(one, returned=UNKNOWN) for one in begun if one not in returned]
        later = [states_by_brute_force(register, under_way, state) for state in shown.before]
        assert states_by_brute_force(register, [*returned, *under_way]) <= set().union(*later)


def test_a_stale_read_is_a_violation_and_can_be_drawn() -> None:
    operations = [
        op(1, ("write", "x", 1), None, 0, 1),
        op(2, ("read", "x"), 1, 2, 3),
        op(1, ("write", "x", 2), None, 2, 4),
        op(3, ("read", "x"), 1, 5, 6),
        op(2, ("read", "x"), 2, 7, 8),
    ]
    outcome = check(register, operations)
    assert outcome.verdict is Verdict.VIOLATION
    assert operations[-1] not in outcome.counterexample
    assert operations[1] not in outcome.counterexample
    picture = draw(register, outcome)
    assert picture.startswith("<svg")
    assert 'class="last"' in picture


def test_a_drawing_says_what_was_answered_and_not_the_key_again_and_again() -> None:
    assert register.describe(("read", "x"), None, True) == "read → nothing"
    assert register.describe(("cas", "x", 1, 2), False, True) == "cas 1 2 → False"
    assert register.describe(("write", "x", 1), None, True) == "write 1"
    assert register.describe(("write", "x", 1), None, False) == "write 1 → ?"
    assert lock.describe(("acquire", "l", "a"), None, True) == "acquire a → nothing"
    assert counter.describe(("value",), 3, True) == "value → 3"
    bank = ("txn", (("a", 10),), (("write", "a", 7), ("read", "b")), (("read", "a"),))
    assert transactions.describe(bank, (True, (None, 3)), True) == (
        "if a=10: write a 7, read b; else read a → yes, 3"
    )
    assert transactions.describe(("txn", (), (), ()), None, False) == "nothing → ?"


def test_what_is_under_way_at_the_first_unexplained_answer_keeps_its_own() -> None:
    """Had the second one succeeded, the first one's answer would be right."""
    operations = [
        op(1, ("write", "x", 2), None, 0, 1),
        op(2, ("cas", "x", 2, 1), False, 3, 4),
        op(3, ("cas", "x", 2, 1), False, 3, 5),
        op(1, ("read", "x"), 2, 6, 7),
    ]
    outcome = check(register, operations)
    assert not allowed_by_brute_force(register, outcome.counterexample)
    assert operations[-1] not in outcome.counterexample


def test_an_unanswered_write_may_take_effect_late_or_never() -> None:
    late = [
        op(1, ("write", "x", 1), None, 0),
        op(2, ("read", "x"), None, 1, 2),
        op(2, ("read", "x"), 1, 3, 4),
    ]
    assert check(register, late).verdict is Verdict.OK
    never = late[:2]
    assert check(register, never).verdict is Verdict.OK
    vanished = [*late, op(2, ("read", "x"), None, 5, 6)]
    assert check(register, vanished).verdict is Verdict.VIOLATION


def test_partitions_are_checked_apart() -> None:
    operations = [op(1, ("write", "x", 1), None, 0, 1), op(1, ("read", "y"), 1, 2, 3)]
    outcome = check(register, operations)
    assert outcome.verdict is Verdict.VIOLATION
    assert outcome.partition == "y"


def test_gives_up_as_unknown_rather_than_guess() -> None:
    operations = [op(client, ("write", "x", client), None, 0, 10) for client in range(8)]
    assert (
        check(register, [*operations, op(9, ("read", "x"), 99, 11, 12)], max_states=20).verdict
        is Verdict.UNKNOWN
    )


def test_lost_increment_is_a_violation() -> None:
    assert (
        check(counter, [op(1, ("increment", 1), 1, 0, 2), op(2, ("increment", 1), 2, 1, 3)]).verdict
        is Verdict.OK
    )
    assert (
        check(counter, [op(1, ("increment", 1), 1, 0, 2), op(2, ("increment", 1), 1, 1, 3)]).verdict
        is Verdict.VIOLATION
    )


def test_a_lock_held_twice_is_a_violation() -> None:
    first, second = op(1, ("acquire", "l", "a"), 5, 0, 1), op(2, ("acquire", "l", "b"), 6, 2, 3)
    assert check(lock, [first, second]).verdict is Verdict.VIOLATION
    released = op(1, ("release", "l", "a"), None, 1.5)
    assert check(lock, [first, released, second]).verdict is Verdict.OK
    assert check(lock, [first, released, op(2, ("acquire", "l", "b"), 5, 2, 3)]).verdict is Verdict.VIOLATION


def test_a_transaction_is_one_step() -> None:
    transfer = ("txn", (("a", 10), ("b", 0)), (("write", "a", 7), ("write", "b", 3)), (("read", "a"),))
    both = ("txn", (), (("read", "a"), ("read", "b")), ())
    setup = op(1, ("txn", (), (("write", "a", 10), ("write", "b", 0)), ()), (True, (None, None)), 0, 1)
    moved = op(1, transfer, (True, (None, None)), 2, 5)
    assert check(transactions, [setup, moved, op(2, both, (True, (10, 0)), 3, 4)]).verdict is Verdict.OK
    assert (
        check(transactions, [setup, moved, op(2, both, (True, (10, 3)), 3, 4)]).verdict is Verdict.VIOLATION
    )


def recorded_history(operations: int, clients: int, keys: int, seed: int) -> list[Operation]:
    """A linearizable history, made by running a register map with random delays."""
    rng = random.Random(seed)
    state: dict[str, int] = {}
    free_at = [0.0] * clients
    history = []
    calls = sorted(
        (rng.random() * operations, client) for client in range(clients) for _ in range(operations // clients)
    )
    for at, client in calls:
        called = max(at, free_at[client]) + rng.random()
        history.append((called, client))
        free_at[client] = called + rng.random() * clients
    timed = []
    for called, client in history:
        end = called + rng.random() * clients / 2
        timed.append((called + (end - called) * rng.random(), called, end, client))
    result = []
    for number, (_, called, end, client) in enumerate(sorted(timed)):
        key = f"k{rng.randrange(keys)}"
        if rng.random() < 0.5:
            state[key] = number
            result.append(op(client, ("write", key, number), None, called, end))
        else:
            result.append(op(client, ("read", key), state.get(key), called, end))
    return result


@pytest.mark.long
@pytest.mark.parametrize("keys", [1, 50])
def test_twenty_thousand_operations_take_seconds(keys: int) -> None:
    operations = recorded_history(20_000, clients=20, keys=keys, seed=1)
    begun = time.perf_counter()
    assert check(register, operations).verdict is Verdict.OK
    assert time.perf_counter() - begun < 20


@pytest.mark.long
@pytest.mark.parametrize("clients", [5, 20])
def test_one_stale_answer_in_twenty_thousand_is_shown_by_a_few_calls(clients: int) -> None:
    operations = recorded_history(20_000, clients=clients, keys=1, seed=1)
    number = next(i for i, one in enumerate(operations) if i > 16_000 and one.input[0] == "read")
    stale = replace(operations[number], output=operations[number].output - 200)
    operations[number] = stale

    begun = time.perf_counter()
    outcome = check(register, operations)

    assert time.perf_counter() - begun < 120
    assert outcome.verdict is Verdict.VIOLATION
    assert outcome.shown is not None
    assert outcome.shown.cut is not None
    assert outcome.counterexample == (stale,)
    assert stale.output not in outcome.shown.before
    assert 1 <= len(outcome.shown.context) <= counterexample.CONTEXT
    picture = draw(register, outcome)
    assert 'class="cut"' in picture
    assert picture.count("<rect class=") == 1 + len(outcome.shown.context)


def test_where_too_much_overlaps_the_end_is_still_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counterexample, "CONFIGURATIONS", 3)
    operations = [op(client, ("write", "x", client), None, 0, 10) for client in range(6)]
    operations += [op(9, ("read", "x"), 99, 11, 12), op(9, ("read", "x"), 98, 13, 14)]
    outcome = check(register, operations)
    assert outcome.shown is not None
    assert outcome.counterexample == (operations[6],)
    assert [one.input for one in outcome.shown.context] == [one.input for one in operations[:6]]


def test_history_drops_what_says_nothing_and_checks_its_assumptions() -> None:
    history = History()
    first, second = history.call(1, ("read", "x"), 0.0), history.call(2, ("write", "x", 1), 0.5)
    history.drop(first)
    history.returns(second, None, 1.0)
    assert [one.client for one in history.operations] == [2]
    check_assumptions(history.operations)
    with pytest.raises(ValueError, match="two calls under way"):
        check_assumptions([op(1, ("read", "x"), None, 0, 2), op(1, ("read", "x"), None, 1, 3)])


def test_an_impossible_history_is_refused() -> None:
    with pytest.raises(ValueError, match="returned before it was called"):
        check(register, [op(1, ("read", "x"), None, 3, 2)])
