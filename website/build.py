"""Builds the site into build/site: ``python -m website.build``, by way of scripts/docs."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable

from sphinx.cmd.build import build_main

from website import cli_api, grpc_api, http_api, python_api
from website.gathering import gather, with_links
from website.outside import requests_outside
from website.overview import from_the_root, front_page, tree
from website.places import OVERVIEW, ROOT, SITE, SOURCE

MADE: dict[str, tuple[str, Callable[[], str]]] = {
    "docs/reference/cli.rst": ("Command line: every command with its options", cli_api.page),
    "docs/reference/python.md": ("Python: every public class and function", python_api.page),
    "docs/reference/grpc.md": ("gRPC: every service and message", grpc_api.page),
    "docs/reference/http-api.md": ("HTTP: every path and object", http_api.page),
}
"""What is made from the code when the site is built, with the line that leads there."""

DECISIONS = "docs/decisions/"
"""One short page each, below their own list."""


def main() -> int:
    """Gather, build with warnings as errors, and look for requests that would leave the site."""
    for folder in (SOURCE, SITE):
        shutil.rmtree(folder, ignore_errors=True)
    SOURCE.mkdir(parents=True)
    pages = gather(SOURCE)
    for path, (_, make) in MADE.items():
        target = SOURCE / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(make())
    decisions = [page for page in pages if page.startswith(DECISIONS) and page != f"{DECISIONS}README.md"]
    with (SOURCE / DECISIONS / "README.md").open("a") as page:
        page.write("\n" + tree("", [one.removeprefix(DECISIONS) for one in decisions]))
    made = [(path, line) for path, (line, _) in MADE.items()]
    text, _ = with_links(OVERVIEW.read_text(), OVERVIEW)
    (SOURCE / "index.md").write_text(
        front_page(from_the_root(text), {"Reference": made}, set(pages) - set(decisions))
    )
    failed: int = build_main(
        ["-q", "-W", "--keep-going", "-j", "auto", "-c", str(ROOT / "website"), str(SOURCE), str(SITE)]
    )
    if failed:
        return failed
    found = requests_outside(SITE)
    for line in found:
        print(f"requests something from outside: {line}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
