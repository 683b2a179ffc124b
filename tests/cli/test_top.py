"""`connect-kv top`: what a terminal of 80 columns shows, and what a script reads."""

from __future__ import annotations

import asyncio
import io
import os
import re
import signal
import sys
from pathlib import Path

import pytest
from rich.console import Console

from connect_kv.cli.overview import MemberView, Overview, Work, advice
from connect_kv.cli.scrape import Scrape, parsed, rate
from connect_kv.cli.status import Row
from connect_kv.cli.top_view import frame
from connect_kv.testing.processes import ProcessCluster, until
from tests.cli.conftest import Cli
from tests.cli.terminal import Screen
from tests.cli.test_status import answered, silent


def scraped(text: str, at: float = 0.0, wall: float = 0.0) -> Scrape:
    return Scrape(at, wall, parsed(text))


def view(row: Row, clock: float | None = 0.0) -> MemberView:
    return MemberView(row, Work(1234567, 8.25, 0, 99999, 0.0123, 10_000), clock)


def shown(overview: Overview, width: int = 80) -> str:
    out = io.StringIO()
    Console(file=out, width=width, highlight=False).print(frame(overview))
    return out.getvalue()


def test_large_numbers_and_long_names_fit_in_80_columns() -> None:
    rows = [answered(0), answered(1), silent(2)]
    rows[1] = Row(rows[1].endpoint, rows[1].status, name="a-very-long-name-of-a-member", id=rows[1].id)
    members = [view(one) for one in rows]
    text = shown(Overview(0.0, members, advice(members, {})))
    assert max(map(len, text.splitlines())) <= 80
    assert "2 of 3 members answer" in text
    assert "led by n1" in text
    assert "123456789" in text
    assert re.search(r"n3 +down", text)
    assert "987.7 MB" in text
    assert "1.2M" in text
    assert "12.3 ms" in text


def test_what_is_wrong_stands_there_once_with_what_to_do() -> None:
    told = ("memberID:12297829382473034410 alarm:NOSPACE", "etcdserver: no leader")
    rows = [answered(0, leader=-1, errors=told), answered(1, errors=told[:1])]
    metrics = scraped(
        'connect_kv_machine_suspended{machine="stock"} 1.0\n'
        'connect_kv_tls_expiry_timestamp_seconds{use="clients"} 86400.0\n'
    )
    members = [view(rows[0], 0.0), view(rows[1], -3.5)]
    found = advice(members, {rows[1].id: metrics})
    assert [(one.who, one.wrong) for one in found] == [
        ("aaaaaaaaaaaaaaaa", "alarm NOSPACE"),
        ("n1", "no leader"),
        ("n2", "its clock is 3.5 s behind the leader's"),
        ("n2", "machine stock is suspended"),
        ("n2", "its certificate for clients expires in 1 days"),
    ]
    assert all(one.to_do for one in found)


def test_rates_are_of_what_grew_and_unknown_after_a_restart() -> None:
    first, later = scraped("a_total 5.0\nb_total 1.0\n", 10.0), scraped("a_total 25.0\nb_total 1.0\n", 12.0)
    assert rate(first, later, ["a_total"]) == 10.0
    assert rate(first, later, ["a_total", "b_total", "unheard_of_total"]) == 10.0
    assert rate(later, scraped("a_total 3.0\n", 14.0), ["a_total"]) is None
    assert rate(None, later, ["a_total"]) is None
    assert rate(later, None, ["a_total"]) is None


@pytest.mark.cluster
def test_once_prints_one_plain_frame_for_scripts(cluster: Cli) -> None:
    cli = cluster
    done = cli("top", "--once", "--interval", "300ms")
    assert done.code == 0, done.err
    assert "\x1b" not in done.out
    assert "1 of 1 members answer" in done.out
    assert re.search(r"n1 +leader +\d+ +\d+ +0 ", done.out)
    rates = re.search(r"^n1 +(\S+) +(\S+) +(\S+) +(\S+) +\S+ +(\S+)$", done.out, re.MULTILINE)
    assert rates is not None, done.out
    assert "-" not in rates.groups()
    (member,) = cli("top", "--once", "--interval", "300ms", "-o", "json").json["members"]  # type: ignore[index]
    assert member["role"] == "leader"
    assert member["clock_difference"] == 0.0
    assert member["rates"]["calls"] > 0


def test_nobody_answers(cli: Cli, refusing: str) -> None:
    done = cli("-e", refusing, "top", "--once", "--interval", "200ms")
    assert done.code == 1
    assert "no member answers" in done.out
    assert f"{refusing} refuses connections" in done.out


@pytest.mark.cluster
async def test_a_terminal_of_80_columns_shows_a_member_die(tmp_path: Path) -> None:
    async with ProcessCluster(tmp_path) as cluster:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("CONNECT_KV_")}
        command = (sys.executable, "-m", "connect_kv.cli.main")
        screen = Screen(environment, *command, "-e", cluster.endpoints, "top", "--interval", "300ms")
        try:
            await until(lambda: _true(any("3 of 3 members" in one for one in screen.frames)), 20, "a frame")
            leader = await cluster.leader()
            victim = next(one for one in cluster.nodes if one is not leader)
            async with cluster.client() as client:
                for number in range(200):
                    await client.put(f"k{number}", "v")
            await until(lambda: _true(bool(_puts(screen.frames, leader.name))), 20, "a rate of puts")
            await victim.kill()
            down = re.compile(rf"^{victim.name} +down", re.MULTILINE)
            await until(lambda: _true(any(down.search(one) for one in screen.frames)), 20, "it to be down")
            assert all(len(line.rstrip("\r")) <= 80 for one in screen.frames for line in one.split("\n"))
            os.killpg(screen.process.pid, signal.SIGINT)
            await asyncio.to_thread(screen.process.wait, 10)
            assert screen.process.returncode == 0
            assert "\x1b[?1049l" in screen.text, "the screen from before is back"
        finally:
            screen.close()


def _puts(frames: list[str], name: str) -> list[str]:
    """What stood under puts beside that member, where that was more than none."""
    row = re.compile(rf"^{name} +([1-9]\S*)(?: +\d\S*){{3}} +(?:-|\S+ ms) +\d+ *\r?$", re.MULTILINE)
    return [match[1] for one in frames for match in row.finditer(one)]


async def _true(value: bool) -> bool:
    return value
