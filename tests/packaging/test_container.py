"""What the container image pins fits the bounds of the package, and holds all that it needs."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
LINES = (ROOT / "packaging" / "container" / "constraints.txt").read_text().splitlines()
PINNED = dict(line.split("==") for line in LINES if not line.startswith("#"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
IMAGE = {"python_version": "3.11", "sys_platform": "linux", "platform_machine": "x86_64"}
"""Of the base that the Dockerfile names."""


def test_every_package_is_pinned_to_one_version_within_its_bounds() -> None:
    for text in PROJECT["dependencies"]:
        wanted = Requirement(text)
        if wanted.marker is None or wanted.marker.evaluate(dict(IMAGE)):
            assert Version(PINNED[canonicalize_name(wanted.name)]) in wanted.specifier, text


def test_the_base_is_the_python_that_the_pins_are_for() -> None:
    base = re.search(r"^ARG BASE=python:([\d.]+)-slim$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert base is not None
    assert base[1] == IMAGE["python_version"]


def test_two_builds_hold_the_same_bytes_and_run_as_nobody_in_particular() -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert "SOURCE_DATE_EPOCH" in text
    assert "--constraint /src/constraints.txt" in text
    assert "\nUSER 10001:10001\n" in text
    assert "!packaging/container/constraints.txt" in (ROOT / ".dockerignore").read_text().splitlines()
