"""Requests made from valid ones by chance: ``python -m tests.gateway.fuzz --requests 1000000 --seed 1``.

Valid ones are those of the recorded cases. What must not be: a 500 that nobody thought of, an answer that is
no HTTP, a server that ends, memory that grows. Calls that wait (locks, watches) are left after a moment.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from connect_kv.testing.ports import free_ports
from connect_kv.testing.processes import NodeProcess
from tests.gateway.raw import Answer, Socket, connected, request
from tests.gateway.replay import CASES

PATIENCE = 0.3
"""Seconds for an answer; then the connection is left, as clients do."""
NEVER = re.compile(r"enable|snapshot|transfer-leadership|member/(add|remove|update|promote)|alarm")
"""Paths whose effect would make an end of the run, not a test of it."""
VALUES = [
    "null", "true", "0", "-1", "1.5", "1e400", '""', '"x"', "[]", "{}", "[[]]", '"\\ud800"', "9" * 400, "NaN",
    '"' + "A" * 3000 + '"', "'", '"\\u0000"', '{"key":{}}', "18446744073709551615", '"AA=="', "[null]",
    '{"a":1,"a":2}',
]  # fmt: skip
HEADERS = [
    ("Authorization", "x"), ("Authorization", "\xff" * 50), ("Grpc-Timeout", "1n"),
    ("Grpc-Timeout", "99999999999H"),
    ("Grpc-Metadata-Token", "a.1"), ("Grpc-Metadata-x-bin", "!!"), ("Grpc-Metadata-hasleader", "true"),
    ("Expect", "100-continue"), ("Expect", "nonsense"), ("Connection", "close"), ("Connection", "upgrade"),
    ("Upgrade", "websocket"), ("Upgrade", "h2c"), ("Origin", "http://a"), ("X" * 500, "y"),
    ("Content-Type", "\x01"),
    ("Accept-Encoding", "gzip"), ("Host", "b"), ("Cookie", "c" * 5000),
]  # fmt: skip


@dataclass(frozen=True)
class Sent:
    """One request."""

    method: str
    path: str
    body: str
    headers: tuple[tuple[str, str], ...] = ()

    def encoded(self) -> bytes:
        data = request(self.method, self.path, self.body.encode("utf-8", "surrogatepass"))
        lines = "".join(f"{name}: {value}\r\n" for name, value in self.headers).encode("latin-1")
        first, rest = data.split(b"\r\n", 1)
        return first + b"\r\n" + lines + rest


def valid() -> list[Sent]:
    found = {
        Sent(step["method"], step["path"], step.get("body") or "")
        for case in CASES["cases"]
        for step in case["steps"]
        if "method" in step and "$BIG" not in (step.get("body") or "") and not NEVER.search(step["path"])
    }
    return sorted(found, key=lambda one: (one.path, one.method, one.body))


def changed(one: Sent, rng: random.Random) -> Sent:
    """The same with one to three changes that a client could make."""
    for _ in range(rng.randint(1, 3)):
        one = rng.choice(CHANGES)(one, rng)
    return one if not NEVER.search(one.path) else Sent("POST", "/v3/kv/range", one.body, one.headers)


def _value(one: Sent, rng: random.Random) -> Sent:
    """One value of the body is another."""
    places = list(re.finditer(r'"(?:[^"\\]|\\.)*"|[0-9.]+|true|false|[\[{]', one.body))
    if not places:
        return Sent(one.method, one.path, rng.choice(VALUES), one.headers)
    place = rng.choice(places)
    return Sent(
        one.method,
        one.path,
        one.body[: place.start()] + rng.choice(VALUES) + one.body[place.end() :],
        one.headers,
    )


def _cut(one: Sent, rng: random.Random) -> Sent:
    if not one.body:
        return one
    start, end = sorted(rng.randrange(len(one.body) + 1) for _ in range(2))
    return Sent(one.method, one.path, one.body[:start] + one.body[end:], one.headers)


def _twice(one: Sent, rng: random.Random) -> Sent:
    if not one.body:
        return one
    start, end = sorted(rng.randrange(len(one.body) + 1) for _ in range(2))
    return Sent(one.method, one.path, one.body[:end] + one.body[start:], one.headers)


def _letter(one: Sent, rng: random.Random) -> Sent:
    at = rng.randrange(len(one.body) + 1)
    letter = rng.choice('{}[]",:\\0123e.-\x00\x1fé\ud800 \n')
    return Sent(
        one.method, one.path, one.body[:at] + letter + one.body[at + rng.randint(0, 1) :], one.headers
    )


def _header(one: Sent, rng: random.Random) -> Sent:
    return Sent(one.method, one.path, one.body, (*one.headers, rng.choice(HEADERS)))


def _method(one: Sent, rng: random.Random) -> Sent:
    method = rng.choice(["GET", "PUT", "HEAD", "OPTIONS", "DELETE", "PATCH", "TRACE", "POST"])
    return Sent(method, one.path, one.body, one.headers)


def _path(one: Sent, rng: random.Random) -> Sent:
    add = rng.choice(
        ["/", "//", "/..", "/../..", "?x=1", "%2f", "%zz", "%ff", ":x", "\x80", "#a", "?exclude=" * 50]
    )
    at = rng.randrange(len(one.path) + 1)
    return Sent(one.method, one.path[:at] + add + one.path[at:], one.body, one.headers)


def _other(one: Sent, rng: random.Random) -> Sent:
    """The body of one call for another."""
    path = rng.choice(PATHS)
    return Sent(one.method, path, one.body, one.headers)


CHANGES: list[Callable[[Sent, random.Random], Sent]] = [
    _value, _value, _value, _cut, _twice, _letter, _header, _method, _path, _other,
]  # fmt: skip
VALID = valid()
PATHS = sorted({one.path for one in VALID})


@dataclass
class Found:
    """What came back."""

    answers: Counter[int] = field(default_factory=Counter)
    left: int = 0
    """That gave no answer for a moment."""
    bad: list[str] = field(default_factory=list)


def judge(sent: bytes, answer: Answer, found: Found) -> None:
    found.answers[answer.status] += 1
    if answer.status != 500:
        return
    try:
        told = json.loads(answer.text.splitlines()[0])
    except (ValueError, IndexError):
        found.bad.append(f"500 without a reason: {sent[:400]!r}: {answer.text[:200]}")
        return
    told = told.get("error", told) if isinstance(told.get("error"), dict) else told
    if told.get("code") != 2 or "internal error" in told.get("message", "internal error"):
        found.bad.append(f"500 that nobody thought of: {sent[:400]!r}: {answer.text[:200]}")


async def one_after_another(port: int, count: int, rng: random.Random, found: Found) -> None:
    """On connections that are kept as long as they last."""
    done = 0
    while done < count:
        async with connected(port) as socket:
            while done < count:
                done += 1
                one = changed(rng.choice(VALID), rng)
                sent = one.encoded()
                if rng.random() < 0.05:  # framing as well
                    at = rng.randrange(len(sent))
                    sent = sent[:at] + bytes([rng.randrange(256)]) + sent[at + rng.randint(0, 2) :]
                if not await _ask(socket, one, sent, found):
                    break


async def _ask(socket: Socket, one: Sent, sent: bytes, found: Found) -> bool:
    """Whether the connection can be used on."""
    try:
        socket.send(sent)
        async with asyncio.timeout(PATIENCE):
            answer = await socket.answer(sent.split(b" ", 1)[0].decode("latin-1"))
            while answer.status == 100:
                answer = await socket.answer(one.method)
    except TimeoutError:
        found.left += 1
        return False
    except (ConnectionError, asyncio.IncompleteReadError):
        found.answers[0] += 1
        return False
    judge(sent, answer, found)
    return answer.headers.get("connection") != "close" and answer.status != 101


async def run(port: int, count: int, seed: int, connections: int = 8) -> Found:
    found = Found()
    async with asyncio.TaskGroup() as tasks:
        for number in range(connections):
            rng = random.Random(f"{seed} {number}")
            tasks.create_task(one_after_another(port, count // connections, rng, found))
    return found


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=240.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        client, peer, http = free_ports(3)
        node = NodeProcess("n1", Path(folder), (client, peer, http), [])
        await node.start()
        await node.ready()
        begun, total, round_number, memory = time.monotonic(), Found(), 0, []
        try:
            while (
                sum(total.answers.values()) < options.requests and time.monotonic() - begun < options.seconds
            ):
                round_number += 1
                some = await run(client, 10_000, options.seed * 1000 + round_number)
                total.answers += some.answers
                total.left += some.left
                total.bad += some.bad
                memory.append(node.memory()["RssAnon"] >> 20)
                if not node.running or some.bad:
                    break
            assert node.running, node.log_tail()
            assert await node.http("/readyz") == 200
            errors = [line for line in node.log_file.read_text().splitlines() if " ERROR " in line]
        finally:
            await node.kill()
    count = sum(total.answers.values())
    seconds = time.monotonic() - begun
    print(f"{count} answered requests, {total.left} left, in {seconds:.0f} s, seed {options.seed}")
    print(f"statuses: {dict(sorted(total.answers.items()))} (0: the connection ended)")
    print(f"anonymous memory of the member, MiB, after every 10,000: {memory}")
    for line in (*total.bad[:10], *errors[:10]):
        print("BAD", line)
    return 1 if total.bad or errors else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
