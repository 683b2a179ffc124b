"""Sphinx reads this: how the gathered pages become a site."""

from __future__ import annotations

import importlib.metadata
import re

import click
from sphinx.application import Sphinx

project = "connect-kv"
version = release = importlib.metadata.version("connect-kv")
project_copyright = "the connect-kv authors, MIT licence"
root_doc = "index"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click"]

myst_heading_anchors = 4  # the same names that links on a code host use
highlight_language = "none"  # a block without a language is text
default_role = "code"  # `name` in a docstring

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "mixed"
autodoc_inherit_docstrings = False
python_use_unqualified_type_names = True

suppress_warnings = ["ref.python"]  # a short name that several public modules have, as Client

html_theme = "furo"
html_title = f"connect-kv {release}"
html_copy_source = False
html_show_sphinx = False
html_last_updated_fmt = None
html_theme_options: dict[str, list[str]] = {"footer_icons": []}


def setup(app: Sphinx) -> None:
    """Texts of the commands are plain text, and not reStructuredText."""
    for part in ("description", "options", "epilog", "arguments"):
        app.connect(f"sphinx-click-process-{part}", plain)


def plain(app: Sphinx, ctx: click.Context, lines: list[str]) -> None:
    """Take from the lines of a help text what would be read as markup; `names` stay code."""
    for number, line in enumerate(lines):
        if not re.match(r"\s*(\.\.|:)", line):
            lines[number] = re.sub(r"(?<!`)([*|]|_(?=\W))(?!`)", r"\\\1", line)
