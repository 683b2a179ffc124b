"""Reference of the Python API: one page for each group of public modules, filled from their docstrings."""

from __future__ import annotations

import importlib
import inspect
import re

from website.places import DOCS

ROW = re.compile(r"^\| `(connect_kv[\w.]*)` \| (.*) \|$", re.MULTILINE)


def public_modules() -> dict[str, str]:
    """What docs/compatibility.md says is public: modules and what they are for."""
    return dict(ROW.findall((DOCS / "compatibility.md").read_text()))


def page() -> str:
    """All public modules, one heading each."""
    parts = [
        f"## {name}\n{what[0].upper()}{what[1:]}.\n\n{_names(name)}"
        for name, what in public_modules().items()
    ]
    return (
        "# Python\nMade from the code. What of it stays as it is: [compatibility](../compatibility.md).\n\n"
        + "\n".join(parts)
    )


def _names(module: str) -> str:
    """The names of a module, as directives; those that are told elsewhere are only named."""
    there = importlib.import_module(module)
    lines = []
    for name in there.__all__:
        value = getattr(there, name)
        kind = "class" if inspect.isclass(value) else "function" if inspect.isroutine(value) else "data"
        if inspect.isclass(value) and issubclass(value, BaseException):
            kind = "exception"
        # What is no class or function has the docstring of its type, which says nothing of it.
        lines.append(f".. {'py:' if kind == 'data' else 'auto'}{kind}:: {module}.{name}")
        if kind in ("class", "exception"):
            lines.append("   :members:\n   :show-inheritance:" if kind == "exception" else "   :members:")
        lines.append("")
    return "```{eval-rst}\n" + "\n".join(lines) + "```\n"
