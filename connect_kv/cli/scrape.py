"""What a member counts, read from its /metrics: on the port for clients, over TLS where that has it."""

from __future__ import annotations

import asyncio
import http.client
import ssl
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

PATIENCE = 5.0
"""Seconds for a whole answer, at most."""

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Scrape:
    """The metrics of one member at one moment."""

    asked_at: float
    """Monotonic seconds here, in the middle between question and answer."""
    wall: float
    """This machine's clock then, seconds since 1970."""
    samples: Mapping[str, Mapping[Labels, float]]
    """By the sample's name, then by its labels, sorted."""

    def total(self, name: str, **labels: str) -> float | None:
        """The sum of the samples of that name that have those labels; None without any."""
        wanted = set(labels.items())
        found = [value for has, value in self.samples.get(name, {}).items() if wanted <= set(has)]
        return sum(found) if found else None

    @property
    def clock_ahead(self) -> float | None:
        """Seconds by which the member's clock is ahead of this machine's."""
        told = self.total("connect_kv_time_seconds")
        return None if told is None else told - self.wall


async def scrape(address: str, context: ssl.SSLContext | None, timeout: float) -> Scrape | None:
    """Ask a member; None if it does not answer so: a member of another make, a proxy for gRPC alone."""
    seconds = min(timeout, PATIENCE)
    try:
        async with asyncio.timeout(seconds):
            return await asyncio.to_thread(_ask, address, context, seconds)
    except (OSError, TimeoutError, http.client.HTTPException, ValueError):
        return None


def _ask(address: str, context: ssl.SSLContext | None, timeout: float) -> Scrape:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    connection = (
        http.client.HTTPConnection(host, int(port), timeout=timeout)
        if context is None
        else http.client.HTTPSConnection(host, int(port), timeout=timeout, context=context)
    )
    try:
        connection.connect()
        began, wall = time.monotonic(), time.time()
        connection.request("GET", "/metrics", headers={"Accept-Encoding": "identity"})
        answer = connection.getresponse()
        half = (time.monotonic() - began) / 2
        text = answer.read().decode()
        if answer.status != http.client.OK:
            raise ValueError(f"status {answer.status}")
    finally:
        connection.close()
    return Scrape(began + half, wall + half, parsed(text))


def parsed(text: str) -> dict[str, dict[Labels, float]]:
    """The samples of an answer. Raises ValueError for what is not Prometheus' format."""
    from prometheus_client.parser import text_string_to_metric_families

    found: dict[str, dict[Labels, float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


def rate(before: Scrape | None, now: Scrape | None, names: Iterable[str]) -> float | None:
    """How fast the sum of those counters grows, a second; None if unknown, as after a restart between."""
    if before is None or now is None or now.asked_at <= before.asked_at:
        return None
    grown = 0.0
    for name in names:
        first, last = before.total(name), now.total(name)
        # A counter that nothing has touched yet has no sample.
        if last is not None:
            grown += last - (first or 0.0)
    return grown / (now.asked_at - before.asked_at) if grown >= 0 else None
