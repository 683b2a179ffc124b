"""Who looks at a database is known, so that what they hold back is given back once they are gone."""

from __future__ import annotations

from connect_kv.storage.views import OpenViews


def test_those_opened_before_a_mark_are_waited_for() -> None:
    views = OpenViews(100)
    called: list[None] = []
    first, second = views.opened(), views.opened()
    mark = views.mark()
    third = views.opened()
    assert views.before(mark) == {first, second}
    views.when_closed(views.before(mark), lambda: called.append(None))
    views.closed(third)
    views.closed(first)
    views.closed(first)
    assert not called
    views.closed(second)
    assert called == [None]
    views.when_closed([first], lambda: called.append(None))
    assert called == [None, None]


def test_a_view_holds_what_could_sink_into_tables_while_it_was_open() -> None:
    views = OpenViews(100)
    views.wrote(1000)
    short = views.opened()
    views.wrote(99)
    views.closed(short)
    assert not views.held
    long = views.opened()
    views.wrote(60)
    views.wrote(60)
    assert not views.held
    views.closed(long)
    assert views.held
