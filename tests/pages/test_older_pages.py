"""Blocks of pages that no other test runs: as they stand, with what a reader types added."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest
import yaml

from connect_kv.options import OPTIONS
from tests.cluster.conftest import needs
from tests.pages.blocks import Block, blocks
from tests.pages.running import run, script

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
SERVE = "connect-kv serve  # goes on: n1\nuntil connect-kv endpoint health; do sleep 0.2; done\n"
PASSWORDS = "export CONNECT_KV_NEW_PASSWORD=secret CONNECT_KV_PASSWORD=secret CONNECT_KV_LOGINS=$PWD/logins\n"
"""What a person types when asked."""


def section(page: Path, title: str) -> list[Block]:
    found = [block for block in blocks(page) if block.section == title]
    assert found, f"{page.name} has no block under {title}"
    return found


@pytest.mark.cluster
def test_the_store_of_the_readme(tmp_path: Path) -> None:
    needs("etcdctl")
    serve, commands, program = section(ROOT / "README.md", "The key/value store")
    assert serve.text.split("#")[0].strip() == "connect-kv serve"
    fragment = program.text.removeprefix("import connect_kv\n").replace("print(event)", "print(event); break")
    whole = (
        "import asyncio\nimport connect_kv\n\n"
        "async def change():\n"
        "    async with connect_kv.connect('127.0.0.1:2379') as client:\n"
        "        while True:\n"
        "            await client.put('green', 'x')\n\n"
        "async def main():\n"
        "    task = asyncio.create_task(change())\n" + textwrap.indent(fragment, "    ") + "\n"
        "    task.cancel()\n\n"
        "asyncio.run(asyncio.wait_for(main(), 60))\n"
    )
    run(
        script(
            SERVE
            + "export ETCDCTL_ENDPOINTS=127.0.0.1:2379\n"
            + commands.text
            + f"cat >fragment.py <<'END'\n{whole}END\n"
            + "python fragment.py  # prints green\n"
        ),
        tmp_path,
    )


@pytest.mark.cluster
def test_http_by_curl(tmp_path: Path) -> None:
    needs("curl")
    serve, *calls = section(DOCS / "http.md", "HTTP")[0].text.splitlines()
    assert serve == "connect-kv serve &"
    put, get, watch = calls
    (call,) = section(DOCS / "http.md", "Calling a replicated class")
    joined = call.text.replace("\\\n", " ").strip()
    run(
        script(
            "connect-kv serve --machine counter=Counter  # goes on: n1\n"
            "until connect-kv endpoint health; do sleep 0.2; done\n"
            f"{put}  # prints revision\n"
            f"{get}  # prints YmFy\n"
            f"{{ timeout 3 {watch} || true; }} | head -1 >watched\ngrep created watched\n"
            f"{joined} >called\ngrep value called\n"
        ),
        tmp_path,
    )


@pytest.mark.cluster
def test_users_of_the_page_on_security(tmp_path: Path) -> None:
    (users,) = section(DOCS / "security.md", "Users")
    assert users.text.count("connect-kv ") >= 10
    run(script(SERVE + PASSWORDS + users.text + 'test "$(connect-kv get shop/a | tail -1)" = 1\n'), tmp_path)


@pytest.mark.cluster
def test_the_user_of_patroni(tmp_path: Path) -> None:
    settings, user = section(DOCS / "patroni.md", "Patroni on connect-kv")
    hosts = yaml.safe_load(settings.text)["etcd3"]["hosts"]
    assert all(re.fullmatch(r"[\d.]+:2379", host) for host in hosts)
    run(script(SERVE + PASSWORDS + user.text + "connect-kv user get patroni  # prints patroni\n"), tmp_path)


def test_the_settings_of_the_unit_are_variables_that_there_are() -> None:
    known = {option.variable for option in OPTIONS.values()}
    settings = next(
        one for one in section(DOCS / "systemd.md", "Under systemd") if one.text.startswith("CONNECT")
    )
    names = [line.split("=")[0] for line in settings.text.splitlines()]
    assert names
    assert set(names) <= known


def test_the_files_that_the_unit_needs_are_where_the_page_takes_them_from() -> None:
    install = section(DOCS / "systemd.md", "Under systemd")[0]
    files = re.findall(r"packaging/systemd/\S+", install.text)
    assert len(files) == 3
    assert all((ROOT / file).is_file() for file in files)
