"""Fixtures for pytest: clusters, simulated and real, and a check that a machine is deterministic.

They are there as soon as connect-kv is installed; see docs/testing.md.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest

if TYPE_CHECKING:
    # At run time only when a test asks for them: every pytest run of its users imports this file.
    from connect_kv.framework.replicated import Replicated
    from connect_kv.testing.real import RealCluster
    from connect_kv.testing.simulated import SimCluster
    from connect_kv.testing.simulation.machine import Arguments

    Machines = Mapping[str, Callable[[], Replicated]]

__all__ = [
    "CheckDeterminism",
    "MakeRealCluster",
    "MakeSimCluster",
    "check_determinism",
    "real_cluster",
    "sim_cluster",
]


class MakeSimCluster(Protocol):
    """The fixture `sim_cluster`."""

    def __call__(
        self,
        machines: Machines | None = None,
        *,
        members: int = 3,
        seed: int = 1,
    ) -> SimCluster:
        """A cluster on virtual time; give its `run` a scenario."""


class MakeRealCluster(Protocol):
    """The fixture `real_cluster`."""

    def __call__(
        self, machines: Mapping[str, str] | None = None, *, members: int = 3
    ) -> AbstractAsyncContextManager[RealCluster]:
        """Processes on loopback, for ``async with``; machines as ``module:Class``."""


class CheckDeterminism(Protocol):
    """The fixture `check_determinism`."""

    def __call__(
        self,
        machine: type[Replicated],
        *,
        calls: int = 200,
        seed: int = 1,
        arguments: Arguments | None = None,
    ) -> None:
        """Raise Violation if members with other hash seeds and clocks come to differ.

        `arguments`: from a method's name and a random generator to what a call of it is given.
        """


@pytest.fixture
def sim_cluster() -> MakeSimCluster:
    """Makes simulated clusters."""
    from connect_kv.testing.simulated import SimCluster

    return SimCluster


@pytest.fixture
def real_cluster(tmp_path: Path) -> MakeRealCluster:
    """Makes clusters of real processes, each in a directory of its own."""
    from connect_kv.testing.real import RealCluster

    made = 0

    @asynccontextmanager
    async def make(
        machines: Mapping[str, str] | None = None, *, members: int = 3
    ) -> AsyncIterator[RealCluster]:
        nonlocal made
        made += 1
        async with RealCluster(tmp_path / f"cluster-{made}", members, machines=machines) as cluster:
            yield cluster

    return make


@pytest.fixture
def check_determinism() -> CheckDeterminism:
    """Runs the same calls on three members that differ in what no machine may depend on."""
    from connect_kv.testing.simulation.determinism import check_determinism

    return check_determinism
