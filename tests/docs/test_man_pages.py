"""The manual pages say what the commands do, and every program that shows such pages can read them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from connect_kv.cli.main import COMMANDS
from tests.etcd import skip_loudly

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "packaging" / "man").glob("*.1"))


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment or None)


def test_they_are_those_of_the_commands_as_they_are() -> None:
    done = run(sys.executable, str(ROOT / "scripts" / "man_pages.py"), "--check")
    assert done.returncode == 0, done.stderr
    assert {page.name for page in PAGES} == {"connect-kv.1", *(f"connect-kv-{name}.1" for name in COMMANDS)}


def test_a_page_that_says_something_else_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "man"
    shutil.copytree(ROOT / "packaging" / "man", folder)
    (folder / "connect-kv-left-over.1").write_text("of a command that is gone")
    page = folder / "connect-kv-top.1"
    page.write_text(page.read_text().replace("Ctrl", "Shift"))
    code = (
        f"import sys, pathlib; sys.path.insert(0, {str(ROOT / 'scripts')!r}); import man_pages; "
        f"print(man_pages.stale(pathlib.Path({str(folder)!r})))"
    )
    done = run(sys.executable, "-c", code)
    assert done.stdout.strip() == "['connect-kv-left-over.1', 'connect-kv-top.1']", done.stderr


def test_no_page_offends_mandoc() -> None:
    if shutil.which("mandoc") is None:
        skip_loudly("no mandoc: scripts/ci-tools installs it")
    done = run("mandoc", "-Tlint", *map(str, PAGES))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("name", ["connect-kv", "connect-kv-snapshot", "connect-kv-txn"])
def test_man_shows_them(name: str) -> None:
    if shutil.which("man") is None:
        skip_loudly("no man")
    page = ROOT / "packaging" / "man" / f"{name}.1"
    done = run("man", "-l", str(page), MANWIDTH="80", MANPAGER="cat", PATH="/usr/bin:/bin", LC_ALL="C.UTF-8")
    assert done.returncode == 0, done.stderr
    assert "SYNOPSIS" in done.stdout
    assert {"connect-kv": "CONNECT_KV_ENDPOINTS", "connect-kv-txn": 'version("lock") = "0"'}.get(
        name, "--bump-revision"
    ) in done.stdout
