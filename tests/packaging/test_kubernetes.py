"""The manifests for Kubernetes: valid by its schemas, coherent, and what they start works."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import ssl
import sys
from pathlib import Path
from typing import Any

import aiohttp
import kubernetes_validate
import pytest
import yaml

import connect_kv
from connect_kv.authority import make_authority, make_client, make_node
from connect_kv.config import load
from connect_kv.credentials import Tls
from connect_kv.testing.ports import free_ports
from connect_kv.testing.processes import until

MANIFEST = Path(__file__).parents[2] / "packaging" / "kubernetes" / "connect-kv.yaml"
DOCUMENTS: list[dict[str, Any]] = list(yaml.safe_load_all(MANIFEST.read_text()))
VERSIONS = ["1.26", "1.31", "1.37"]


def of_kind(kind: str, name: str = "connect-kv") -> dict[str, Any]:
    (found,) = (one for one in DOCUMENTS if one["kind"] == kind and one["metadata"]["name"] == name)
    return found


POD = of_kind("StatefulSet")["spec"]["template"]
(CONTAINER,) = POD["spec"]["containers"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda one: f"{one['kind']}-{one['metadata']['name']}")
def test_it_is_valid(document: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(document, version, strict=True)


def test_a_word_that_is_none_is_seen() -> None:
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**of_kind("Service"), "spce": {}}, VERSIONS[-1], strict=True)


def environment(name: str) -> dict[str, str]:
    """As kubelet makes it: a variable is put in where it was defined above."""
    found: dict[str, str] = {}
    for variable in CONTAINER["env"]:
        value = variable.get("value")
        if value is None:
            assert variable["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.name"}}
            value = name
        found[variable["name"]] = re.sub(r"\$\((\w+)\)", lambda match: found[match[1]], value)
    return found


def test_its_parts_name_each_other() -> None:
    stateful = of_kind("StatefulSet")["spec"]
    labels = POD["metadata"]["labels"]
    assert stateful["selector"]["matchLabels"] == labels
    for service in ("connect-kv", "connect-kv-members"):
        spec = of_kind("Service", service)["spec"]
        assert spec["selector"] == labels
        assert {port["targetPort"] for port in spec["ports"]} <= {one["name"] for one in CONTAINER["ports"]}
    assert of_kind("PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == labels
    (term,) = POD["spec"]["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert term["labelSelector"]["matchLabels"] == labels
    assert stateful["serviceName"] == "connect-kv-members"
    volumes = {one["name"] for one in POD["spec"]["volumes"]}
    volumes |= {one["metadata"]["name"] for one in stateful["volumeClaimTemplates"]}
    assert {one["name"] for one in CONTAINER["volumeMounts"]} == volumes


def test_the_budget_leaves_a_majority() -> None:
    members = of_kind("StatefulSet")["spec"]["replicas"]
    config = load({}, environment("connect-kv-0"))
    assert len(config.members) == members
    assert members - of_kind("PodDisruptionBudget")["spec"]["maxUnavailable"] > members // 2


@pytest.mark.parametrize("number", range(3))
def test_each_pod_is_a_member_under_its_own_name(number: int) -> None:
    name = f"connect-kv-{number}"
    config = load({}, environment(name))
    own = next(one for one in config.members if one.name == name)
    assert own.peer_address == config.advertise_peer == f"{name}.connect-kv-members:2380"
    ports = {one["name"]: str(one["containerPort"]) for one in CONTAINER["ports"]}
    for port, address in (
        ("client", config.listen_client),
        ("peer", config.listen_peer),
        ("http", config.listen_http),
    ):
        assert address == f"0.0.0.0:{ports[port]}"
    assert config.data_dir.is_relative_to("/data")


@pytest.mark.cluster
async def test_three_pods_on_loopback(tmp_path: Path) -> None:
    """The container's command and environment, with addresses and folders of this machine; and its probes."""
    pki = tmp_path / "tls"
    make_authority(pki)
    tls = make_client(pki, "root")
    ports = {f"connect-kv-{number}": free_ports(3) for number in range(3)}
    for name in ports:
        made = make_node(pki, name, [name, f"{name}.connect-kv-members", "localhost", "127.0.0.1"])
        made.key.chmod(0o440)  # as a secret is mounted

    def here(name: str, value: str) -> str:
        value = value.replace("/tls/", f"{pki}/").replace("/data/", f"{tmp_path}/{name}/")
        for other, (_, peer, _) in ports.items():
            value = value.replace(f"{other}.connect-kv-members:2380", f"127.0.0.1:{peer}")
        for given, port in zip((2379, 2380, 2381), ports[name], strict=True):
            value = value.replace(f"0.0.0.0:{given}", f"127.0.0.1:{port}")
            value = value.replace(f"{name}.connect-kv-members:{given}", f"127.0.0.1:{port}")
        return value

    own = {key: value for key, value in os.environ.items() if not key.startswith("CONNECT_KV_")}
    members = []
    for name in ports:
        (tmp_path / name).mkdir()
        variables = {key: here(name, value) for key, value in environment(name).items()}
        command = (sys.executable, "-m", "connect_kv.cli.main", *CONTAINER["args"])
        with (tmp_path / f"{name}.log").open("wb") as log:
            members.append(
                await asyncio.create_subprocess_exec(
                    *command, env={**own, **variables}, cwd=tmp_path, stdout=log, stderr=log
                )
            )
    try:
        endpoints = ",".join(f"127.0.0.1:{client}" for client, _, _ in ports.values())
        files = Tls(ca=pki / "ca.pem", cert=tls.cert, key=tls.key)
        async with connect_kv.connect(endpoints, timeout=40, tls=files) as client:
            await client.put("k", "v")
            assert len(await client.members()) == 3
        for _, _, http in ports.values():
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                await until_passes(CONTAINER[probe]["httpGet"], http)
    except BaseException:
        print(*((tmp_path / f"{name}.log").read_text() for name in ports), sep="\n", file=sys.stderr)
        raise
    finally:
        for member in members:
            if member.returncode is None:
                member.send_signal(signal.SIGTERM)
        codes = [await asyncio.wait_for(member.wait(), 30) for member in members]
    assert codes == [0, 0, 0]


async def until_passes(probe: dict[str, str], port: int) -> None:
    """As kubelet asks: it shows no certificate, and does not look at the member's."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    url = f"{probe['scheme'].lower()}://127.0.0.1:{port}{probe['path']}"
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:

        async def passes() -> bool:
            async with session.get(url) as answer:
                return 200 <= answer.status < 400

        await until(passes, 20, f"{url} to pass")
