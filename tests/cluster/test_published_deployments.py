"""Three members each by the flags of published three-node etcd clusters: with another program's name, and on
loopback with ports of their own, they form a cluster.

What stands here are the flags, variables and keys that each one sets; hosts and ports, directories and
certificates are ours.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import connect_kv
from connect_kv.credentials import Tls
from connect_kv.testing.ports import free_ports
from tests.etcd import ENVIRONMENT

START = (sys.executable, "-m", "connect_kv.cli.main", "etcd")


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """What one of its three containers, units or pods starts. Braces: see `test_they_form_a_cluster`."""

    id: str
    arguments: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    file: str = ""
    """A YAML file, named by --config-file."""
    tls: bool = False
    """Everybody shows a certificate of one authority, which names hosts, as etcd's do."""
    warned: tuple[str, ...] = ()
    """What is said to have no meaning."""


_PROFILING = "--enable-pprof: has no meaning here: there is no profiling by HTTP"
_FIVE_SECONDS = (
    "--watch-progress-notify-interval: has no meaning here: idle watches are told every ten minutes"
)
_CORRUPT = (
    "--initial-corrupt-check: has no meaning here: data is checked whenever it is read, and members compare"
    " it"
)
_ARCHITECTURE = "ETCD_UNSUPPORTED_ARCH: no flag of etcd is called so"

DEPLOYMENTS = [
    Deployment(
        id="the clustering guide of etcd's documentation",
        arguments="--name {name} --initial-advertise-peer-urls http://{host}:{peer} "
        "--listen-peer-urls http://{host}:{peer} "
        "--listen-client-urls http://{host}:{client},http://127.0.0.1:{client} "
        "--advertise-client-urls http://{host}:{client} --initial-cluster-token etcd-cluster-1 "
        "--initial-cluster {cluster} --initial-cluster-state new",
    ),
    Deployment(
        id="its guide to three containers",
        arguments="--data-dir={data} --name {name} --initial-advertise-peer-urls http://{host}:{peer} "
        "--listen-peer-urls http://0.0.0.0:{peer} --advertise-client-urls http://{host}:{client} "
        "--listen-client-urls http://0.0.0.0:{client} --initial-cluster {cluster} "
        "--initial-cluster-state new --initial-cluster-token my-etcd-token",
    ),
    Deployment(
        id="the Procfile in etcd's repository",
        arguments="--name {name} --listen-client-urls http://127.0.0.1:{client} "
        "--advertise-client-urls http://127.0.0.1:{client} --listen-peer-urls http://127.0.0.1:{peer} "
        "--initial-advertise-peer-urls http://127.0.0.1:{peer} --initial-cluster-token etcd-cluster-1 "
        "--initial-cluster '{cluster}' --initial-cluster-state new --enable-pprof --logger=zap "
        "--log-outputs=stderr",
        warned=(_PROFILING,),
    ),
    Deployment(
        id="the sample of a configuration file in etcd's repository",
        file="""
name: '{name}'
data-dir: {data}
wal-dir:
snapshot-count: 10000
heartbeat-interval: 100
election-timeout: 1000
quota-backend-bytes: 0
listen-peer-urls: http://{host}:{peer}
listen-client-urls: http://localhost:{client}
max-snapshots: 5
max-wals: 5
cors:
initial-advertise-peer-urls: http://{host}:{peer}
advertise-client-urls: http://localhost:{client}
discovery:
discovery-fallback: 'proxy'
discovery-proxy:
discovery-srv:
initial-cluster: {cluster}
initial-cluster-token: 'etcd-cluster'
initial-cluster-state: 'new'
strict-reconfig-check: false
enable-pprof: true
proxy: 'off'
proxy-failure-wait: 5000
proxy-refresh-interval: 30000
proxy-dial-timeout: 1000
proxy-write-timeout: 5000
proxy-read-timeout: 0
client-transport-security:
  cert-file:
  key-file:
  client-cert-auth: false
  trusted-ca-file:
  auto-tls: false
peer-transport-security:
  cert-file:
  key-file:
  client-cert-auth: false
  trusted-ca-file:
  auto-tls: false
self-signed-cert-validity: 1
log-level: debug
logger: zap
log-outputs: [stderr]
force-new-cluster: false
auto-compaction-mode: periodic
auto-compaction-retention: "1"
cipher-suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384]
tls-min-version: 'TLS1.2'
tls-max-version: 'TLS1.3'
""",
        warned=("--strict-reconfig-check: has no meaning here: it is always so", _PROFILING),
    ),
    Deployment(
        id="the static pods of kubeadm with stacked control planes",
        arguments="--advertise-client-urls=https://{host}:{client} --cert-file={pki}/server.crt "
        "--client-cert-auth=true --data-dir={data} --experimental-initial-corrupt-check=true "
        "--experimental-watch-progress-notify-interval=5s "
        "--initial-advertise-peer-urls=https://{host}:{peer} "
        "--initial-cluster={cluster} --initial-cluster-state=new --key-file={pki}/server.key "
        "--listen-client-urls=https://127.0.0.1:{client},https://{host}:{client} "
        "--listen-metrics-urls=http://127.0.0.1:{metrics} --listen-peer-urls=https://{host}:{peer} "
        "--name={name} --peer-cert-file={pki}/server.crt --peer-client-cert-auth=true "
        "--peer-key-file={pki}/server.key --peer-trusted-ca-file={pki}/ca.crt --snapshot-count=10000 "
        "--trusted-ca-file={pki}/ca.crt",
        tls=True,
        warned=(_CORRUPT, _FIVE_SECONDS),
    ),
    Deployment(
        id="the units of Kubernetes the hard way with three controllers",
        arguments="--name {name} --cert-file={pki}/server.crt --key-file={pki}/server.key "
        "--peer-cert-file={pki}/server.crt --peer-key-file={pki}/server.key --trusted-ca-file={pki}/ca.crt "
        "--peer-trusted-ca-file={pki}/ca.crt --peer-client-cert-auth --client-cert-auth "
        "--initial-advertise-peer-urls https://{host}:{peer} --listen-peer-urls https://{host}:{peer} "
        "--listen-client-urls https://{host}:{client},https://127.0.0.1:{client} "
        "--advertise-client-urls https://{host}:{client} --initial-cluster-token etcd-cluster-0 "
        "--initial-cluster {cluster} --initial-cluster-state new --data-dir={data}",
        tls=True,
    ),
    Deployment(
        id="the environment file of Kubespray",
        environment={
            "ETCD_DATA_DIR": "{data}",
            "ETCD_ADVERTISE_CLIENT_URLS": "https://{host}:{client}",
            "ETCD_INITIAL_ADVERTISE_PEER_URLS": "https://{host}:{peer}",
            "ETCD_INITIAL_CLUSTER_STATE": "new",
            "ETCD_METRICS": "basic",
            "ETCD_LISTEN_CLIENT_URLS": "https://{host}:{client},https://127.0.0.1:{client}",
            "ETCD_ELECTION_TIMEOUT": "5000",
            "ETCD_HEARTBEAT_INTERVAL": "250",
            "ETCD_INITIAL_CLUSTER_TOKEN": "k8s_etcd",
            "ETCD_LISTEN_PEER_URLS": "https://{host}:{peer}",
            "ETCD_NAME": "{name}",
            "ETCD_PROXY": "off",
            "ETCD_INITIAL_CLUSTER": "{cluster}",
            "ETCD_AUTO_COMPACTION_RETENTION": "8",
            "ETCD_TRUSTED_CA_FILE": "{pki}/ca.crt",
            "ETCD_CERT_FILE": "{pki}/server.crt",
            "ETCD_KEY_FILE": "{pki}/server.key",
            "ETCD_CLIENT_CERT_AUTH": "true",
            "ETCD_PEER_TRUSTED_CA_FILE": "{pki}/ca.crt",
            "ETCD_PEER_CERT_FILE": "{pki}/server.crt",
            "ETCD_PEER_KEY_FILE": "{pki}/server.key",
            "ETCD_PEER_CLIENT_CERT_AUTH": "True",
            "ETCD_UNSUPPORTED_ARCH": "arm64",
        },
        tls=True,
        warned=(_ARCHITECTURE,),
    ),
    Deployment(
        id="the compose file and chart of Bitnami",
        environment={
            "ALLOW_NONE_AUTHENTICATION": "yes",
            "ETCD_NAME": "{name}",
            "ETCD_DATA_DIR": "{data}",
            "ETCD_INITIAL_ADVERTISE_PEER_URLS": "http://{host}:{peer}",
            "ETCD_LISTEN_PEER_URLS": "http://0.0.0.0:{peer}",
            "ETCD_LISTEN_CLIENT_URLS": "http://0.0.0.0:{client}",
            "ETCD_ADVERTISE_CLIENT_URLS": "http://{host}:{client}",
            "ETCD_INITIAL_CLUSTER_TOKEN": "etcd-cluster",
            "ETCD_INITIAL_CLUSTER": "{cluster}",
            "ETCD_INITIAL_CLUSTER_STATE": "new",
        },
    ),
    Deployment(
        id="Patroni's compose file, and what its image adds",
        arguments="--name {name} --initial-advertise-peer-urls http://{host}:{peer} "
        "-advertise-client-urls http://{host}:{client}",
        environment={
            "ETCD_LISTEN_PEER_URLS": "http://0.0.0.0:{peer}",
            "ETCD_LISTEN_CLIENT_URLS": "http://0.0.0.0:{client}",
            "ETCD_INITIAL_CLUSTER": "{cluster}",
            "ETCD_INITIAL_CLUSTER_STATE": "new",
            "ETCD_INITIAL_CLUSTER_TOKEN": "tutorial",
            "ETCD_UNSUPPORTED_ARCH": "arm64",
        },
        warned=(_ARCHITECTURE,),
    ),
]


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, one certificate for all members and one for a client, as openssl makes them for etcd."""
    folder = tmp_path_factory.mktemp("pki")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    new = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl(*new, "-x509", "-days", "10", "-subj", "/CN=etcd-ca", "-keyout", "ca.key", "-out", "ca.crt")
    for name, usage, names in (
        ("server", "serverAuth,clientAuth", "DNS:localhost,IP:127.0.0.1"),
        ("client", "clientAuth", "DNS:client"),
    ):
        openssl(*new, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        (folder / "extensions").write_text(
            f"extendedKeyUsage={usage}\nsubjectAltName={names}\nkeyUsage=digitalSignature\n"
            "basicConstraints=CA:FALSE\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
        )
        openssl(
            "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial",
            "-days", "10", "-extfile", "extensions", "-out", f"{name}.crt",
        )  # fmt: skip
    return folder


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda one: one.id)
async def test_they_form_a_cluster(deployment: Deployment, tmp_path: Path, pki: Path) -> None:
    ports = free_ports(9)
    client, peer, metrics = ports[:3], ports[3:6], ports[6:]
    scheme = "https" if deployment.tls else "http"
    host = str(ipaddress.IPv4Address(0x7F000001))
    cluster = ",".join(f"infra{number}={scheme}://{host}:{port}" for number, port in enumerate(peer))
    members, logs = [], [tmp_path / f"{number}.log" for number in range(3)]
    for number, log in enumerate(logs):
        names: dict[str, object] = {
            "name": f"infra{number}",
            "host": host,
            "client": client[number],
            "peer": peer[number],
            "metrics": metrics[number],
            "cluster": cluster,
            "data": tmp_path / f"data{number}",
            "pki": pki,
        }
        arguments = [word.format(**names) for word in shlex.split(deployment.arguments)]
        if deployment.file:
            file = tmp_path / f"{number}.yml"
            file.write_text(deployment.file.format(**names))
            arguments = ["--config-file", str(file)]
        environment = {name: value.format(**names) for name, value in deployment.environment.items()}
        with log.open("wb") as output:
            members.append(
                await asyncio.create_subprocess_exec(
                    *START, *arguments, stdout=output, stderr=output, cwd=tmp_path,
                    env={**ENVIRONMENT, **environment},
                )
            )  # fmt: skip
    tls = Tls(ca=pki / "ca.crt", cert=pki / "client.crt", key=pki / "client.key") if deployment.tls else None
    try:
        for number, port in enumerate(client):
            async with connect_kv.connect(f"127.0.0.1:{port}", timeout=40, tls=tls) as found:
                await found.put(f"k{number}", "v")
                assert [one.key for one in await found.get_prefix("k")] == [
                    b"k%d" % one for one in range(number + 1)
                ]
                assert len(await found.members()) == 3
    except BaseException:
        print(*(log.read_text() for log in logs), sep="\n", file=sys.stderr)
        raise
    finally:
        for member in members:
            if member.returncode is None:
                member.send_signal(signal.SIGTERM)
        codes = [await asyncio.wait_for(member.wait(), 30) for member in members]
    assert codes == [0, 0, 0]
    for log in logs:
        said = [
            line for line in log.read_text().splitlines() if "has no meaning" in line or "no flag" in line
        ]
        assert len(said) == len(deployment.warned)
        assert all(any(text in line for line in said) for text in deployment.warned), os.linesep.join(said)
