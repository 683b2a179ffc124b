"""What docs/compatibility.md calls public is marked so, and is there."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from types import ModuleType

import pytest

import connect_kv

PAGE = Path(__file__).parent.parent.parent / "docs" / "compatibility.md"
MODULES = re.findall(r"^\| `(connect_kv[\w.]*)` \|", PAGE.read_text(), re.MULTILINE)


def marked(module: ModuleType) -> list[str]:
    names = module.__all__
    assert len(names) == len(set(names))
    for name in names:
        assert not name.startswith("_")
        assert hasattr(module, name), f"{module.__name__}.{name}"
    return list(names)


@pytest.mark.parametrize("name", MODULES)
def test_a_public_module_says_what_is_public(name: str) -> None:
    assert marked(importlib.import_module(name))


@pytest.mark.parametrize("name", connect_kv.__all__)
def test_what_the_package_shows_is_public_where_it_comes_from(name: str) -> None:
    origin = getattr(getattr(connect_kv, name), "__module__", None)
    if origin is not None and origin.startswith("connect_kv."):
        assert name in marked(importlib.import_module(origin))


@pytest.mark.parametrize("name", importlib.import_module("connect_kv.types").__all__)
def test_ready_made_classes_are_documented(name: str) -> None:
    assert getattr(importlib.import_module("connect_kv.types"), name).__doc__


def test_the_page_names_the_faces() -> None:
    assert {"connect_kv", "connect_kv.sync", "connect_kv.types", "connect_kv.testing.plugin"} <= set(MODULES)
