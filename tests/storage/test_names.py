"""When the names of a directory must be looked at again."""

import os
from pathlib import Path

from connect_kv.storage.names import SETTLED_SECONDS, Names


class Now:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


def test_a_directory_that_rests_is_looked_at_no_more(tmp_path: Path) -> None:
    now = Now()
    names = Names(tmp_path, now)
    assert names.may_have_changed()
    now.time += SETTLED_SECONDS + 1
    assert names.may_have_changed()
    assert not names.may_have_changed()

    (tmp_path / "new").touch()
    assert names.may_have_changed()


def test_a_name_that_came_in_the_same_tick_of_the_file_system_is_not_missed(tmp_path: Path) -> None:
    """Its clock stands between two ticks: both changes bear one time."""
    now = Now()
    names = Names(tmp_path, now)
    tick = os.stat(tmp_path).st_mtime_ns
    assert names.may_have_changed()
    now.time += SETTLED_SECONDS / 2
    (tmp_path / "new").touch()
    os.utime(tmp_path, ns=(tick, tick))
    assert names.may_have_changed()
    now.time += SETTLED_SECONDS
    assert names.may_have_changed()
    assert not names.may_have_changed()


def test_a_time_of_change_that_goes_back_counts_as_one(tmp_path: Path) -> None:
    now = Now()
    names = Names(tmp_path, now)
    names.may_have_changed()
    now.time += SETTLED_SECONDS + 1
    names.may_have_changed()
    assert not names.may_have_changed()
    os.utime(tmp_path, ns=(1, 1))
    assert names.may_have_changed()
