"""The two times of an entry."""

from connect_kv.kv.moment import Moment
from tests.kv.conftest import SECOND

HOUR = 3600 * SECOND


def test_durations_are_dates_until_the_first_entry_that_was_measured() -> None:
    at = Moment().after(5 * SECOND, 0).after(9 * SECOND, 0)
    assert (at.now, at.since) == (9 * SECOND, 0)
    at = at.after(4 * SECOND, 0)
    assert at.now == 9 * SECOND


def test_measured_time_goes_on_from_the_date_and_no_date_moves_it_any_more() -> None:
    at = Moment().after(100 * SECOND, 0).after(100 * SECOND, 1)
    assert (at.now, at.since) == (100 * SECOND, 100 * SECOND)
    at = at.after(HOUR, 103 * SECOND)
    assert (at.log_time, at.now) == (HOUR, 103 * SECOND)
    at = at.after(2 * HOUR, 0)
    assert (at.log_time, at.now) == (2 * HOUR, 103 * SECOND)


def test_a_new_cluster_measures_from_its_first_entry() -> None:
    at = Moment().after(100 * HOUR, 1)
    assert (at.now, at.since) == (1, 0)
    assert at.after(101 * HOUR, 7).now == 7


def test_neither_goes_back() -> None:
    at = Moment().after(10, 10).after(5, 5)
    assert (at.log_time, at.now) == (10, 10)


def test_another_cluster_at_the_same_index_chooses_another_number() -> None:
    chosen = {Moment(log_time=date).scattered(index) for date in range(50) for index in range(50)}
    assert len(chosen) == 2500
    assert min(chosen) >= 0
    assert max(chosen) < 1 << 63
