"""What etcd was told is what this is told: by flags, environment and file, as published deployments do."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from connect_kv.cli.etcd_options import Told, given, translate
from connect_kv.config import ServerConfig, load
from connect_kv.errors import ConfigError
from connect_kv.etcd_flags import FLAGS, find
from tests.docs.etcd_flags import PAGE, page
from tests.etcd import ENVIRONMENT, find_etcd


def told(arguments: str = "", environ: dict[str, str] | None = None) -> Told:
    values, warnings = given(arguments.split(), environ or {})
    found = translate(values)
    found.warnings[:0] = warnings
    return found


def config(found: Told) -> ServerConfig:
    return load(found.options, {})


def test_the_page_is_the_table() -> None:
    assert PAGE.read_text() == page()


def test_every_flag_of_an_etcd_is_known() -> None:
    program = find_etcd()
    if program is None:
        pytest.skip("no etcd")
    said = subprocess.run([program, "--help"], capture_output=True, text=True, env=ENVIRONMENT, check=False)
    flags = re.findall(r"^\s+--([a-z0-9-]+)", said.stdout + said.stderr, re.MULTILINE)
    assert len(flags) > 70
    assert [flag for flag in flags if find(flag) is None] == []


def test_without_flags_it_stands_where_an_etcd_would() -> None:
    found = config(told())
    assert (found.name, found.data_dir) == ("default", Path("default.etcd"))
    assert (found.listen_client, found.listen_peer, found.listen_http) == (
        "localhost:2379",
        "localhost:2380",
        "",
    )
    assert [(one.name, one.peer_address) for one in found.members] == [("default", "localhost:2380")]


KUBEADM = (
    "--advertise-client-urls=https://10.0.0.5:2379 --cert-file=/pki/server.crt --client-cert-auth=true "
    "--data-dir=/var/lib/etcd --experimental-initial-corrupt-check=true "
    "--experimental-watch-progress-notify-interval=5s --initial-advertise-peer-urls=https://10.0.0.5:2380 "
    "--initial-cluster=cp=https://10.0.0.5:2380 --key-file=/pki/server.key "
    "--listen-client-urls=https://127.0.0.1:2379,https://10.0.0.5:2379 "
    "--listen-metrics-urls=http://127.0.0.1:2381 --listen-peer-urls=https://10.0.0.5:2380 --name=cp "
    "--peer-cert-file=/pki/peer.crt --peer-client-cert-auth=true --peer-key-file=/pki/peer.key "
    "--peer-trusted-ca-file=/pki/ca.crt --snapshot-count=10000 --trusted-ca-file=/pki/ca.crt"
)


def test_the_static_pod_of_kubeadm() -> None:
    found = told(KUBEADM)
    assert found.also_listen == ("10.0.0.5:2379",)
    assert found.options["http_tls"] == "off"
    made = config(found)
    assert (made.listen_client, made.listen_http) == ("127.0.0.1:2379", "127.0.0.1:2381")
    assert (made.client_cert_auth, made.trusted_ca_file) == (True, Path("/pki/ca.crt"))
    assert made.peer_trusted_ca_file == Path("/pki/ca.crt")
    assert found.warnings == [
        "--initial-corrupt-check: has no meaning here: data is checked whenever it is read, and members"
        " compare it",
        "--watch-progress-notify-interval: has no meaning here: idle watches are told every ten minutes",
    ]


def test_the_compose_file_of_etcds_own_documentation() -> None:
    """Three containers, all interfaces, one token; flags with one dash in older versions of it."""
    found = told(
        "-name etcd-00 -data-dir /etcd-data -advertise-client-urls http://etcd-00:2379 "
        "-listen-client-urls http://0.0.0.0:2379 -initial-advertise-peer-urls http://etcd-00:2380 "
        "-listen-peer-urls http://0.0.0.0:2380 -initial-cluster-token etcd-cluster-1 -initial-cluster "
        "etcd-00=http://etcd-00:2380,etcd-01=http://etcd-01:2380,etcd-02=http://etcd-02:2380 "
        "-initial-cluster-state new --log-level info --logger zap --log-outputs stderr"
    )
    made = config(found)
    assert found.warnings == []
    assert [one.peer_address for one in made.members] == ["etcd-00:2380", "etcd-01:2380", "etcd-02:2380"]
    assert (made.listen_client, made.client_address) == ("0.0.0.0:2379", "etcd-00:2379")
    assert (made.initial_cluster_token, made.initial_cluster_state) == ("etcd-cluster-1", "new")


def test_the_environment_of_a_charts_containers() -> None:
    """As the charts of Bitnami set it, and what their scripts set beside."""
    found = told(
        environ={
            "ETCD_NAME": "etcd-0",
            "ETCD_DATA_DIR": "/bitnami/etcd/data",
            "ETCD_ADVERTISE_CLIENT_URLS": "http://etcd-0.etcd-headless:2379,http://etcd:2379",
            "ETCD_LISTEN_CLIENT_URLS": "http://0.0.0.0:2379",
            "ETCD_INITIAL_ADVERTISE_PEER_URLS": "http://etcd-0.etcd-headless:2380",
            "ETCD_LISTEN_PEER_URLS": "http://0.0.0.0:2380",
            "ETCD_INITIAL_CLUSTER_TOKEN": "etcd-cluster-k8s",
            "ETCD_INITIAL_CLUSTER_STATE": "new",
            "ETCD_INITIAL_CLUSTER": "etcd-0=http://etcd-0.etcd-headless:2380,etcd-1=http://etcd-1.etcd-headless:2380",
            "ETCD_AUTO_COMPACTION_MODE": "periodic",
            "ETCD_AUTO_COMPACTION_RETENTION": "10",
            "ETCD_ROOT_PASSWORD": "secret",
            "ETCD_LOG_LEVEL": "warn",
            "PATH": "/bin",
        }
    )
    made = config(found)
    assert (made.auto_compaction, made.log_level) == ("10h", "warning")
    assert made.client_address == "etcd-0.etcd-headless:2379"
    assert found.warnings == [
        "ETCD_ROOT_PASSWORD: no flag of etcd is called so",
        "--advertise-client-urls: clients are told the first one",
    ]


def test_compose_files_of_programs_that_bring_an_etcd() -> None:
    """Milvus and APISIX: a quota, compaction by revisions, and the command in one line."""
    found = told(
        "-advertise-client-urls=http://etcd:2379 -listen-client-urls http://0.0.0.0:2379 --data-dir /etcd",
        {
            "ETCD_AUTO_COMPACTION_MODE": "revision",
            "ETCD_AUTO_COMPACTION_RETENTION": "1000",
            "ETCD_QUOTA_BACKEND_BYTES": "4294967296",
            "ETCD_SNAPSHOT_COUNT": "50000",
        },
    )
    made = config(found)
    assert (made.auto_compaction, made.quota_bytes, made.snapshot_count) == ("1000", 4 << 30, 50_000)
    apisix = config(
        told(
            environ={
                "ETCD_ENABLE_V2": "false",
                "ALLOW_NONE_AUTHENTICATION": "yes",
                "ETCD_ADVERTISE_CLIENT_URLS": "http://etcd:2379",
                "ETCD_LISTEN_CLIENT_URLS": "http://0.0.0.0:2379",
            }
        )
    )
    assert apisix.client_address == "etcd:2379"
    with pytest.raises(ConfigError, match="--enable-v2=true: etcd's second API is not here"):
        told(environ={"ETCD_ENABLE_V2": "true"})


def test_the_unit_that_debian_and_kubernetes_the_hard_way_have() -> None:
    debian = config(told(environ={"ETCD_NAME": "host", "ETCD_DATA_DIR": "/var/lib/etcd/default"}))
    assert debian.data_dir == Path("/var/lib/etcd/default")
    hard_way = config(
        told(
            "--name controller --initial-advertise-peer-urls http://127.0.0.1:2380 --listen-peer-urls "
            "http://127.0.0.1:2380 --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls "
            "http://127.0.0.1:2379 --initial-cluster-token etcd-cluster-0 --initial-cluster "
            "controller=http://127.0.0.1:2380 --initial-cluster-state new --data-dir=/var/lib/etcd"
        )
    )
    assert hard_way.listen_peer == "127.0.0.1:2380"


def test_the_file_of_k3s_and_of_ansible(tmp_path: Path) -> None:
    """A table of TLS for clients and one for members; heartbeats of half a second."""
    path = tmp_path / "config"
    path.write_text(
        "advertise-client-urls: https://10.0.0.1:2379\nclient-transport-security:\n  cert-file: c\n"
        "  client-cert-auth: true\n  key-file: k\n  trusted-ca-file: ca\ndata-dir: /var/lib/etcd\n"
        "election-timeout: 5000\nheartbeat-interval: 500\nlisten-client-http-urls: http://127.0.0.1:2382\n"
        "listen-client-urls: https://127.0.0.1:2379,https://10.0.0.1:2379\n"
        "listen-metrics-urls: http://127.0.0.1:2381\nlisten-peer-urls: https://127.0.0.1:2380\n"
        "initial-advertise-peer-urls: https://127.0.0.1:2380\nlog-outputs:\n- stderr\nlogger: zap\nname: n\n"
        "peer-transport-security:\n  cert-file: pc\n  client-cert-auth: true\n  key-file: pk\n"
        "  trusted-ca-file: pca\n  allowed-cn: etcd\nsnapshot-count: 10000\n"
    )
    found = told(f"--config-file {path}", {"ETCD_NAME": "other"})
    made = config(found)
    assert (made.name, made.election_ms, made.heartbeat_ms) == ("n", 5000, 500)
    assert (made.peer_cert_file, made.peer_cert_allowed_cn) == (Path("pc"), "etcd")
    assert made.client_cert_auth
    assert found.warnings == []
    path.write_text("strange-flag: 1\n")
    with pytest.raises(ConfigError, match="has no such flag"):
        told(f"--config-file={path}")
    path.write_text("a: [")
    with pytest.raises(ConfigError, match=str(path)):
        told(f"--config-file={path}")
    with pytest.raises(ConfigError, match="No such file"):
        told("--config-file=nowhere")


def test_a_switch_is_spelled_as_go_reads_it() -> None:
    """Tools that fill in templates write True."""
    tls = "--listen-client-urls=https://a:1 --advertise-client-urls=https://a:1 --cert-file=c --key-file=k "
    for yes in ("true", "True", "TRUE", "t", "T", "1"):
        made = config(told(f"{tls} --trusted-ca-file=ca --client-cert-auth={yes}", {"ETCD_PRE_VOTE": yes}))
        assert made.client_cert_auth
    for no in ("false", "False", "0"):
        assert told(environ={"ETCD_ENABLE_PPROF": no, "ETCD_FORCE_NEW_CLUSTER": no}).warnings == []
    with pytest.raises(ConfigError, match="force-new-cluster"):
        told("--force-new-cluster=True")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--frobnicate", "--frobnicate: etcd 3.4 to 3.6 has no such flag"),
        ("serve", "'serve' is no flag of etcd"),
        ("--name", "--name: expected a value"),
        ("--force-new-cluster", "make a backup"),
        ("--discovery=https://discovery.etcd.io/x", "there is no discovery"),
        ("--proxy=on", "it is a member and no proxy"),
        ("--experimental-enable-v2v3=/v2", "second API"),
        ("--listen-client-urls=http://a:1", "--advertise-client-urls is required"),
        ("--listen-client-urls=unix:///x --advertise-client-urls=http://a:1", "sockets of files"),
        ("--listen-client-urls=a:1 --advertise-client-urls=http://a:1", "expected http://HOST:PORT"),
        ("--listen-client-urls=http://a:1,https://b:1 --advertise-client-urls=http://a:1", "some are https"),
        ("--listen-client-urls=https://a:1 --advertise-client-urls=https://a:1", "https needs --cert-file"),
        ("--listen-peer-urls=http://a:1,http://b:1", "one address for other members"),
        ("--listen-peer-urls=https://a:1", "https needs --peer-cert-file"),
        ("--initial-cluster=a=http://x:1,a=http://y:1", "a has two addresses"),
        ("--max-txn-ops=1000", "at most 128 operations"),
        ("--auto-compaction-mode=sometimes", "expected periodic or revision"),
        ("--auto-compaction-mode=revision --auto-compaction-retention=1h", "a number of revisions"),
    ],
)
def test_what_cannot_be_kept_is_refused_by_name(arguments: str, said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        told(arguments)


def test_certificates_count_where_the_urls_say_so() -> None:
    found = told("--cert-file=c --key-file=k --trusted-ca-file=ca --peer-cert-file=p --peer-key-file=pk")
    made = config(found)
    assert (made.cert_file, made.peer_cert_file, made.trusted_ca_file) == (None, None, None)
    assert len(found.warnings) == 2
    found = told(
        "--listen-client-urls=https://a:1 --advertise-client-urls=https://a:1 --cert-file=c --key-file=k "
        "--trusted-ca-file=ca"
    )
    assert config(found).cert_file == Path("c")
    assert config(found).trusted_ca_file is None, "it alone demands no certificate there"


def test_each_idle_flag_is_named_once_and_only_where_it_asks_for_something() -> None:
    defaults = " ".join(
        f"--{flag.name}={flag.quiet[0]}" for flag in FLAGS.values() if flag.quiet and " " not in flag.quiet[0]
    )
    assert told(defaults).warnings == []
    found = told("--wal-dir=/wal --pre-vote=false --unsafe-no-fsync --socket-reuse-port=true --max-wals=9")
    assert [line.split(":")[0] for line in found.warnings] == [
        "--wal-dir", "--pre-vote", "--unsafe-no-fsync", "--socket-reuse-port", "--max-wals",
    ]  # fmt: skip


def test_numbers_and_spellings() -> None:
    made = config(told("--heartbeat-interval=20 --election-timeout=200 --experimental-corrupt-check-time=1h"))
    assert (made.heartbeat_ms, made.tick_ms, made.election_ms) == (20, 20, 200)
    assert made.corruption_check_seconds == 3600
    assert config(told("--quota-backend-bytes=-1")).quota_bytes == -1
    assert config(told("--log-format=console --debug")).log_format == "text"
    assert config(told("--auto-compaction-retention=30m")).auto_compaction == "30m"
