"""Ready-made replicated classes, and clients that feel like what they are named after.

Usable without code: ``--machine jobs=Queue``, or in Connect.toml ``machines = { jobs = "Queue" }``. Called by
the typed clients here, by `client.machine("jobs", Queue)`, by `connect-kv call` and from any language.
"""

from connect_kv.containers.barrier import Barrier, BarrierClient
from connect_kv.containers.counter import Counter, CounterClient
from connect_kv.containers.dict import Dict, DictClient
from connect_kv.containers.list import List, ListClient
from connect_kv.containers.lock import Lock, LockClient
from connect_kv.containers.priority_queue import PriorityQueue, PriorityQueueClient
from connect_kv.containers.queue import Queue, QueueClient, Taken
from connect_kv.containers.rate_limiter import RateLimiter, RateLimiterClient
from connect_kv.containers.semaphore import Semaphore, SemaphoreClient
from connect_kv.containers.set import Set, SetClient

__all__ = [
    "Barrier",
    "BarrierClient",
    "Counter",
    "CounterClient",
    "Dict",
    "DictClient",
    "List",
    "ListClient",
    "Lock",
    "LockClient",
    "PriorityQueue",
    "PriorityQueueClient",
    "Queue",
    "QueueClient",
    "RateLimiter",
    "RateLimiterClient",
    "Semaphore",
    "SemaphoreClient",
    "Set",
    "SetClient",
    "Taken",
]
