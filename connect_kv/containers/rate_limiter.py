"""A limit on how often something may happen."""

from __future__ import annotations

from dataclasses import dataclass

from connect_kv.client.client import Client
from connect_kv.containers.container import TypedClient, forwarded
from connect_kv.framework.replicated import Replicated, command, query

NANO = 1_000_000_000
TIDIED = 2
"""Buckets that are looked at in each call, whether they are full and can be forgotten."""


@dataclass
class Bucket:
    """What is left of one key."""

    tokens: int
    """What is left, in billionths of a token."""
    at: int
    """The log time, in nanoseconds, at which `tokens` was left."""


class RateLimiter(Replicated):
    """A token bucket for each key: `burst` at once, and `rate` more in a second.

    Seconds are those of `log_time`, the only clock there is. When the leader's clock steps forward, a bucket
    is filled once, to its burst and no further; when it steps back, nothing comes in until it has caught up.
    So a step gives a key its burst at most; who must not even get that hangs on a lease instead.
    """

    def __init__(self) -> None:
        self.rate: int = 10
        self.burst: int = 10
        self.buckets: dict[str, Bucket] = {}
        """Of keys whose bucket is not full, or was not when it was looked at last."""

    @command
    def configure(self, rate: int, burst: int) -> None:
        """Tokens a second, and at most; for all keys, from now on."""
        if rate < 1 or burst < 1:
            raise ValueError("rate and burst are at least 1")
        now = self.log_time
        for bucket in self.buckets.values():
            bucket.tokens, bucket.at = min(self._level(bucket, now), burst * NANO), max(bucket.at, now)
        self.rate, self.burst = rate, burst

    @command
    def acquire(self, key: str = "", tokens: int = 1) -> bool:
        """Take tokens of that key, if there are as many: whether there were."""
        if not 1 <= tokens <= self.burst:
            raise ValueError(f"tokens: from 1 to {self.burst}")
        now = self.log_time
        bucket = self.buckets.pop(key, None) or Bucket(self.burst * NANO, now)
        bucket.tokens, bucket.at = self._level(bucket, now), max(bucket.at, now)
        allowed = bucket.tokens >= tokens * NANO
        if allowed:
            bucket.tokens -= tokens * NANO
        self._tidy(now)
        self.buckets[key] = bucket
        return allowed

    @query
    def available(self, key: str = "") -> int:
        """How many tokens a key has now."""
        bucket = self.buckets.get(key)
        return self.burst if bucket is None else self._level(bucket, self.log_time) // NANO

    def _level(self, bucket: Bucket, now: int) -> int:
        return min(self.burst * NANO, bucket.tokens + max(0, now - bucket.at) * self.rate)

    def _tidy(self, now: int) -> None:
        """A full bucket is as good as none; those that were not used for long come first."""
        for key in list(self.buckets)[:TIDIED]:
            if self._level(self.buckets[key], now) == self.burst * NANO:
                del self.buckets[key]


class RateLimiterClient(TypedClient[RateLimiter]):
    """A replicated rate limiter."""

    def __init__(self, client: Client, name: str) -> None:
        super().__init__(client, name, RateLimiter)

    configure = forwarded(RateLimiter.configure)
    acquire = forwarded(RateLimiter.acquire)
    available = forwarded(RateLimiter.available)
