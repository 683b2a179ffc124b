"""Where the parts of the site lie."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
OVERVIEW = DOCS / "README.md"
"""The list of all pages, by what a reader wants; the front page of the site is made from it."""
BUILD = ROOT / "build"
SOURCE = BUILD / "site-source"
SITE = BUILD / "site"
