"""What every section needs: where it may work, how much it is to do, and where its figures go."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figures import Figures, Notebook
from benchmarks.systems import ConnectKv, Etcd, System


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkRun:
    """One round of one section."""

    notebook: Notebook
    directory: Path
    """Empty, and deleted afterwards."""
    etcd: str
    """The program of etcd."""
    scale: float = 1.0
    keys: int = 1_000_000
    keep: Path | None = None
    """Where data that is slow to load stays for the next run."""

    def some(self, number: int, least: int = 200) -> int:
        """A number of operations, scaled to how thorough the run is."""
        return max(least, int(number * self.scale))

    async def attempt(self, row: str, system: System, measuring: Awaitable[Figures]) -> Figures | None:
        """Note what comes out. A load that fails is said, and the others go on."""
        try:
            figures = await measuring
        except (RuntimeError, TimeoutError) as error:
            self.notebook.failed(row, system.name, error)
            return None
        self.notebook.note(row, system.name, figures)
        return figures


Alone = Callable[[BenchmarkRun], Awaitable[None]]
"""A section that starts what it needs."""
Beside = Callable[[BenchmarkRun, ConnectKv, Etcd], Awaitable[None]]
"""A section of loads on two clusters of three that stand side by side."""
