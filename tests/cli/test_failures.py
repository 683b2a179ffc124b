"""Every failure is one line on standard error and an exit code, never a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Cli


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["get"], 2, "Missing argument 'KEY'"),
        (["fly"], 2, "No such command 'fly'"),
        (["-e", "nowhere", "get", "a"], 2, "'nowhere': expected HOST:PORT"),
        (["get", "a", "b", "--prefix"], 2, "only one of"),
        (["-e", "REFUSING", "--timeout", "0.3", "get", "a"], 1, "REFUSING refuses connections"),
        (["-e", "REFUSING", "--timeout", "1", "put", "a", "b"], 1, "nothing was changed"),
        (
            ["-e", "REFUSING", "--timeout", "0.3", "watch", "a"],
            1,
            "within 0.3 s: REFUSING refuses",
        ),
        (["lease", "revoke", "xyz"], 2, "expected a lease id in hexadecimal"),
        (["call", "counter", "increment", "5"], 2, "expected NAME=VALUE"),
        (["inspect", "missing"], 1, "missing: is not the data directory"),
        (["verify", "missing"], 1, "missing: is not the data directory"),
        (["dev", "--nodes", "99"], 2, "99"),
    ],
)
def test_is_one_clear_line(cli: Cli, refusing: str, words: list[str], code: int, says: str) -> None:
    done = cli(*(word.replace("REFUSING", refusing) for word in words))
    assert done.code == code
    assert says.replace("REFUSING", refusing) in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert done.out == ""


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--listen-client", "nowhere"], "--listen-client: 'nowhere': expected HOST:PORT"),
        (["--config", "missing.toml"], "missing.toml"),
        (["--machine", "x=nosuchmodule:C"], "nosuchmodule"),
    ],
)
def test_a_node_that_cannot_be_configured_says_so(cli: Cli, words: list[str], says: str) -> None:
    done = cli.process("serve", *words)
    assert done.code == 2
    assert says in done.err
    assert len(done.err.strip().splitlines()) == 1


def test_a_malformed_transaction_names_the_line(cli: Cli) -> None:
    done = cli("txn", stdin="\nput only-a-key\n")
    assert done.code == 2
    assert "line 2: put only-a-key" in done.err


def test_a_cluster_directory_keeps_its_number_of_nodes(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "ports.json").write_text("[[1, 2, 3]]")
    done = cli("dev", "--nodes", "3", "--data-dir", str(tmp_path))
    assert done.code == 2
    assert "holds a cluster of 1 nodes, not of 3" in done.err


def test_an_option_wins_over_the_environment_wherever_it_stands(cli: Cli, refusing: str) -> None:
    cli.environment["CONNECT_KV_ENDPOINTS"] = "nonsense"
    cli.environment["CONNECT_KV_TIMEOUT"] = "1h"
    for words in (
        ["-e", refusing, "--timeout", "300ms", "get", "a"],
        ["get", "a", "-e", refusing, "--timeout", "300ms"],
        ["-e", "nonsense too", "--timeout", "2h", "get", "a", "-e", refusing, "--timeout", "300ms"],
    ):
        assert f"{refusing} refuses connections" in cli(*words).err


def test_options_come_from_the_environment(cli: Cli) -> None:
    cli.environment["CONNECT_KV_ENDPOINTS"] = "nonsense"
    assert "'nonsense'" in cli("get", "a").err
    cli.environment["CONNECT_KV_LISTEN_PEER"] = "rubbish"
    assert "CONNECT_KV_LISTEN_PEER: 'rubbish'" in cli("serve").err
