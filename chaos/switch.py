"""A switch between network namespaces: it moves IP packets from tunnel to tunnel, or does not.

Run as its own process, so that clients do not slow it down: arguments are ``OCTET=FILENO`` of the tunnels,
lines on standard input are JSON: ``[source, target, {quality}]``. It ends when its input does.
"""

from __future__ import annotations

import heapq
import json
import os
import random
import select
import sys
import time

from connect_kv.testing.network import PERFECT, Quality

PACKET = 65536
BATCH = 64
"""Packets taken from one tunnel before the others get a turn."""


class Switch:
    """Tunnels by the last octet of the address behind them."""

    def __init__(self, tunnels: dict[int, int], rng: random.Random) -> None:
        self._tunnels = tunnels
        self._octets = {descriptor: octet for octet, descriptor in tunnels.items()}
        self._qualities: dict[tuple[int, int], Quality] = {}
        self._rng = rng
        self._late: list[tuple[float, int, int, bytes]] = []
        self._number = 0

    def set(self, source: int, target: int, quality: Quality) -> None:
        """From now on; what is delayed already still arrives."""
        self._qualities[source, target] = quality

    def forward(self, source: int, packet: bytes, now: float) -> None:
        """One packet that came from a tunnel."""
        if len(packet) < 20 or packet[0] >> 4 != 4:
            return
        target = self._tunnels.get(packet[19])
        quality = self._qualities.get((source, packet[19]), PERFECT)
        if target is None or quality.blocked:
            return
        if quality is PERFECT:
            _write(target, packet)
            return
        chance = self._rng.random
        if quality.loss and chance() < quality.loss:
            return
        for _ in range(2 if quality.duplicate and chance() < quality.duplicate else 1):
            self._number += 1
            due = now + quality.delay + quality.jitter * chance()
            heapq.heappush(self._late, (due, self._number, target, packet))

    def deliver(self, now: float) -> float | None:
        """Send what is due; seconds until there is more."""
        while self._late:
            due, _, target, packet = self._late[0]
            if due > now:
                return due - now
            heapq.heappop(self._late)
            _write(target, packet)
        return None

    def run(self, commands: int) -> None:
        """Pass packets on, until the descriptor `commands` ends."""
        poll = select.epoll()
        for descriptor in (*self._octets, commands):
            os.set_blocking(descriptor, False)
            poll.register(descriptor, select.EPOLLIN)
        rest = b""
        while True:
            wait = self.deliver(time.monotonic())
            for descriptor, _ in poll.poll(wait):
                if descriptor != commands:
                    self._take(descriptor)
                    continue
                data = os.read(commands, PACKET)
                if not data:
                    return
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    source, target, quality = json.loads(line)
                    self.set(source, target, Quality(**quality))

    def _take(self, descriptor: int) -> None:
        now = time.monotonic()
        for _ in range(BATCH):
            try:
                packet = os.read(descriptor, PACKET)
            except OSError:  # no more, or its namespace is gone
                return
            self.forward(self._octets[descriptor], packet, now)


def _write(tunnel: int, packet: bytes) -> None:
    try:
        os.write(tunnel, packet)
    except OSError:  # its queue is full, or nobody is there: lost, as packets are
        return


if __name__ == "__main__":
    pairs = (argument.partition("=") for argument in sys.argv[1:])
    Switch({int(octet): int(number) for octet, _, number in pairs}, random.Random(1)).run(sys.stdin.fileno())
