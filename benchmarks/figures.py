"""What a run measures: figures by row and system, kept section by section beside how they were made."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

Figures = Mapping[str, float]
"""Values by the name of their column; see `COLUMNS`."""
Rows = dict[str, dict[str, Figures]]
"""Measurements by row and system."""

COLUMNS: Mapping[str, tuple[str, str]] = {
    "rate": ("a second", ",.0f"),
    "median": ("median, ms", ",.2f"),
    "p90": ("p90, ms", ",.2f"),
    "p99": ("p99, ms", ",.2f"),
    "p999": ("p99.9, ms", ",.2f"),
    "cpu": ("CPU s per 1,000", ".3f"),
    "seconds": ("seconds", ",.2f"),
    "anonymous": ("anonymous, MiB", ",.0f"),
    "resident": ("resident, MiB", ",.0f"),
    "offered": ("offered a second", ",.0f"),
    "refused": ("refused a second", ",.0f"),
    "disk": ("disk, MiB", ",.0f"),
}
"""Title and format of each figure. `cpu` is that of all servers together; memory that of the largest."""


@dataclass(slots=True)
class Section:
    """One section of the page: its figures, and how they came to be."""

    about: str
    command: str
    machine: str
    rows: Rows = field(default_factory=dict)


class Notebook:
    """Takes every figure of a section as it is measured, and says it; medians at the end."""

    def __init__(self) -> None:
        self._found: dict[str, dict[str, list[Figures]]] = defaultdict(lambda: defaultdict(list))

    def note(self, row: str, system: str, figures: Figures) -> None:
        """Note a measurement."""
        self._found[row][system].append(figures)
        said = ", ".join(f"{COLUMNS[name][0]} {value:{COLUMNS[name][1]}}" for name, value in figures.items())
        print(f"{row:34} {system:13} {said}", flush=True)

    def failed(self, row: str, system: str, error: BaseException) -> None:
        """It could not be measured."""
        print(f"{row:34} {system:13} FAILED: {error!r}", flush=True)

    def medians(self) -> Rows:
        """Of each figure by itself."""
        return {
            row: {system: _medians(figures) for system, figures in systems.items()}
            for row, systems in self._found.items()
        }


def _medians(found: list[Figures]) -> Figures:
    names = dict.fromkeys(name for one in found for name in one)
    return {name: statistics.median(one.get(name, 0.0) for one in found) for name in names}


def load(path: Path) -> dict[str, Section]:
    """Sections by name, as `save` left them."""
    if not path.exists():
        return {}
    return {name: Section(**data) for name, data in json.loads(path.read_text()).items()}


def save(path: Path, sections: Mapping[str, Section]) -> None:
    """Write all measurements to a file, rounded."""
    data = {
        name: {
            "about": one.about,
            "command": one.command,
            "machine": one.machine,
            "rows": {
                row: {
                    system: {key: round(value, 4) for key, value in figures.items()}
                    for system, figures in systems.items()
                }
                for row, systems in one.rows.items()
            },
        }
        for name, one in sections.items()
    }
    path.write_text(json.dumps(data, indent=1) + "\n")
