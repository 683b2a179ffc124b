"""user, role, auth, login: against a real node, and what they refuse."""

from __future__ import annotations

import os
import pty
import select
import signal
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Cli, dev

pytestmark = pytest.mark.cluster


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Cli]:
    """A node with authentication on: root, and al who may read and write below ``k/``."""
    with dev(tmp_path) as cli:
        cli.environment["CONNECT_KV_LOGINS"] = str(tmp_path / "logins" / "logins.json")
        found_users(cli)
        yield cli


def found_users(cli: Cli) -> None:
    said = []
    for words, stdin in (
        ("user add root --new-password-file -", "r00t\n"),
        ("user add al --new-user-password secret", ""),
        ("role add k", ""),
        ("role grant-permission k readwrite k/ --prefix", ""),
        ("user grant-role al k", ""),
        ("auth enable", ""),
    ):
        done = cli(*words.split(), stdin=stdin)
        assert done.code == 0, done.err
        said.append(done.out)
    assert said == [
        "User root created\n",
        "User al created\n",
        "Role k created\n",
        "Role k updated\n",
        "Role k is granted to user al\n",
        "Authentication Enabled\n",
    ]


def as_root(cli: Cli, *words: str, stdin: str = "") -> str:
    done = cli("--user", "root:r00t", *words, stdin=stdin)
    assert done.code == 0, done.err
    return done.out


def test_users_and_roles(guarded: Cli) -> None:
    assert as_root(guarded, "auth", "status") == "Authentication Status: true\nAuthRevision: 8\n"
    assert as_root(guarded, "auth", "status", "-o", "json") == '{"enabled": true, "revision": 8}\n'
    assert as_root(guarded, "user", "list") == "al\nroot\n"
    assert as_root(guarded, "role", "list") == "k\nroot\n"
    assert as_root(guarded, "user", "get", "al") == "User: al\nRoles: k\n"
    grants = (
        "k read a c", "k write from --from-key", "k readwrite one", "k query --machine counter",
        "k command --machine *", "k read a/ --prefix",
    )  # fmt: skip
    for grant in grants:
        assert as_root(guarded, "role", "grant-permission", *grant.split()) == "Role k updated\n"
    rights = (
        "Role k\nKV Read:\n\t[a, c)\n\t[a/, a0) (prefix a/)\n\t[k/, k0) (prefix k/)\n\tone\n"
        "KV Write:\n\t[from, <open ended>\n\t[k/, k0) (prefix k/)\n\tone\n"
        "Machine Query:\n\t*\n\tcounter\nMachine Command:\n\t*\n"
    )
    assert as_root(guarded, "role", "get", "k") == rights
    assert as_root(guarded, "user", "get", "al", "--detail") == f"User: al\n\n{rights}"
    found = guarded("--user", "al:secret", "role", "get", "k", "-o", "json").json
    assert isinstance(found, dict)
    assert found["permissions"][0] == {"right": "read", "key": "a", "range_end": "c"}
    assert found["machines"] == [
        {"right": "command", "machine": "*"},
        {"right": "query", "machine": "counter"},
    ]
    assert "prefix a/" in as_root(guarded, "role", "get", "k", "-o", "table")
    for words, said in (
        ("k a c", "Permission of range [a, c) is revoked from role k\n"),
        ("k one", "Permission of key one is revoked from role k\n"),
        ("k from --from-key", "Permission of range [from, <open ended> is revoked from role k\n"),
        ("k --machine counter", "Permission of machine counter is revoked from role k\n"),
    ):
        assert as_root(guarded, "role", "revoke-permission", *words.split()) == said
    assert as_root(guarded, "call", "counter", "increment", "by=2") == "2\n"
    assert guarded("--user", "al:secret", "call", "counter", "increment").out == "3\n"  # by the right on "*"
    assert as_root(guarded, "user", "revoke-role", "al", "k") == "Role k is revoked from user al\n"
    assert as_root(guarded, "role", "delete", "k") == "Role k deleted\n"
    assert as_root(guarded, "user", "add", "cert", "--no-password") == "User cert created\n"
    assert as_root(guarded, "user", "delete", "cert") == "User cert deleted\n"
    changed = as_root(guarded, "user", "passwd", "al", "--new-password-file", "-", stdin="another")
    assert changed == "Password updated\n"
    assert guarded("--user", "al:secret", "get", "k/1").code == 1
    assert as_root(guarded, "auth", "disable") == "Authentication Disabled\n"
    assert guarded("user", "list", "-o", "json").json == [{"user": "al"}, {"user": "root"}]


def test_who_calls(guarded: Cli) -> None:
    """By option, file, environment; a wrong password, and none, are each one line."""
    (guarded.directory / "password").write_text("secret\n")
    assert guarded("--user", "al", "--password-file", "password", "put", "k/1", "v").out == "OK\n"
    guarded.environment["CONNECT_KV_PASSWORD"] = "secret"
    assert guarded("put", "k/1", "v", "--user", "al").out == "OK\n"
    guarded.environment["CONNECT_KV_USER"] = "al"
    assert guarded("get", "k/1").out == "k/1\nv\n"
    assert guarded("get", "other").err == "error: etcdserver: permission denied\n"
    assert guarded("status").code == 0
    del guarded.environment["CONNECT_KV_USER"], guarded.environment["CONNECT_KV_PASSWORD"]
    for words, code, line in (
        (("--user", "al:wrong"), 1, "etcdserver: authentication failed, invalid user ID or password"),
        (("--user", "nobody:x"), 1, "etcdserver: authentication failed, invalid user ID or password"),
        ((), 1, "etcdserver: user name is empty: say who calls with --user NAME, or connect-kv login"),
        (("--user", "al"), 2, "no password for user 'al': give --password-file FILE"),
        (("--user", "al", "--password-file", "none"), 2, "password file none: cannot be read: No such file"),
    ):
        done = guarded(*words, "get", "k/1")
        assert done.code == code
        assert done.err.startswith(f"error: {line}")
        assert done.err.count("\n") == 1


def test_a_login_serves_later_calls(guarded: Cli) -> None:
    where = Path(guarded.environment["CONNECT_KV_LOGINS"])
    done = guarded("login", "al", "--password-file", "-", stdin="secret")
    assert done.out == f"logged in as al; the token is in {where}\n", done.err
    assert stat.S_IMODE(where.stat().st_mode) == 0o600
    assert stat.S_IMODE(where.parent.stat().st_mode) == 0o700
    assert "secret" not in where.read_text()
    assert guarded("put", "k/1", "v").out == "OK\n"
    assert guarded("user", "get", "al").out == "User: al\nRoles: k\n"
    assert as_root(guarded, "get", "other") == ""  # --user counts before it
    # To nobody else: this address is not one of the cluster's members.
    foreign = guarded("-e", "127.0.0.1:1,127.0.0.1:2", "get", "k/1", "--timeout", "300ms")
    assert "refuse" in foreign.err
    where.chmod(0o644)
    assert guarded("get", "k/1").err.startswith(f"error: {where}: others than its owner can read it")
    where.chmod(0o600)
    as_root(guarded, "user", "passwd", "al", "--new-user-password", "another")
    assert (
        guarded("get", "k/1").err == "error: etcdserver: invalid auth token: connect-kv login gets another\n"
    )
    assert guarded("logout").out == "al logged out\n"
    assert guarded("logout").out == "nobody was logged in\n"
    assert "say who calls" in guarded("get", "k/1").err
    where.write_text("{}")
    assert guarded("get", "k/1").err.startswith(f"error: {where}: holds no logins as connect-kv writes them")


def test_over_tls_loads_run_as_users_and_a_token_is_never_sent_in_the_clear(tmp_path: Path) -> None:
    logins = tmp_path / "logins.json"
    with dev(tmp_path, "--tls") as cli:
        certs = tmp_path / "data" / "certs"
        tls = {"CACERT": "ca.pem", "CERT": "client.pem", "KEY": "client.key"}
        cli.environment |= {f"CONNECT_KV_{name}": str(certs / file) for name, file in tls.items()}
        cli.environment["CONNECT_KV_LOGINS"] = str(logins)
        found_users(cli)
        assert cli("login", "al", "--password-file", "-", stdin="secret").code == 0
        assert cli("get", "k/1").code == 0
        for words in ("put", "put --door unary", "watch --watchers 3", "lease-keep-alive --callers 4"):
            loaded = cli("--user", "root:r00t", "bench", *words.split(), "--total", "40")
            assert loaded.code == 0, loaded.err
        denied = cli("--user", "al:secret", "bench", "put", "--door", "unary", "--total", "4")
        assert "permission denied" in denied.err
        wrong = cli("--user", "al:wrong", "bench", "put", "--door", "unary", "--total", "4")
        assert wrong.err == "error: etcdserver: authentication failed, invalid user ID or password\n"
        address = cli.environment["CONNECT_KV_ENDPOINTS"]
    from connect_kv.cli import logins as kept

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONNECT_KV_LOGINS", str(logins))
        assert kept.token_for([address], tls=True)
        assert kept.token_for([address], tls=False) == ""


def test_a_person_is_asked(guarded: Cli) -> None:
    """On a terminal, which does not show what is typed."""
    shown = typed(guarded, ["--user", "al", "put", "k/1", "v"], "secret\n")
    assert "Password of al" in shown
    assert "secret" not in shown
    assert guarded("--user", "al:secret", "get", "k/1", "--print-value-only").out == "v\n"
    shown = typed(guarded, ["--user", "root:r00t", "user", "add", "bo"], "pw\npw\n")
    assert "User bo created" in shown
    assert guarded("--user", "bo:pw", "user", "get", "bo").code == 0


def typed(cli: Cli, words: list[str], keys: str) -> str:
    """Run it on a terminal where somebody types; all that the terminal showed."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(cli.directory)
        os.execvpe(sys.executable, [sys.executable, "-m", "connect_kv.cli.main", *words], cli.environment)
    shown = b""
    lines = keys.splitlines(keepends=True)
    try:
        while True:
            if not select.select([terminal], [], [], 30)[0]:
                os.kill(pid, signal.SIGKILL)
            shown += os.read(terminal, 1024)
            if lines and shown.endswith(b": "):  # the space comes once nothing is echoed any more
                shown += b"\n"
                os.write(terminal, lines.pop(0).encode())
    except OSError:  # the end of a terminal
        pass
    finally:
        os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, shown
    return shown.decode()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("user add al:secret", "a password does not belong on the command line"),
        ("user add al --no-password --new-user-password x", "--no-password goes with no password"),
        ("role grant-permission r nope k", "'nope' is not one of 'read', 'write', 'readwrite', 'query'"),
        ("role grant-permission r query k", "query and command go with --machine NAME"),
        ("role grant-permission r read k --machine m", "query and command go with --machine NAME"),
        ("role grant-permission r query k --machine m", "--machine stands instead of keys"),
        ("role grant-permission r read", "which key?"),
        ("role grant-permission r read a b --prefix", "exclude each other"),
        ("role revoke-permission r", "which key?"),
        ("login", "who are you? connect-kv login NAME"),
    ],
)
def test_what_is_not_meant_so_is_refused(cli: Cli, words: str, line: str) -> None:
    done = cli(*words.split())
    assert done.code == 2
    assert line in done.err
    assert done.err.count("\n") == 1


def test_enabling_without_root_says_what_to_do(tmp_path: Path) -> None:
    with dev(tmp_path) as cli:
        assert cli("auth", "enable").err == (
            "error: etcdserver: root user does not exist: connect-kv user add root\n"
        )
        login = cli("login", "al", "--password-file", "-", stdin="x")
        assert login.err == "error: etcdserver: authentication is not enabled\n"
        # A password is no harm where nobody is asked.
        assert cli("--user", "al:secret", "put", "k", "v").out == "OK\n"
