"""Alerts of packaging/monitoring fire by real faults, as a real Prometheus sees them."""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import aiohttp

from chaos import faulty_machine
from connect_kv import errors
from connect_kv.authority import make_authority, make_node
from connect_kv.rpc.maintenance_pb2 import NOSPACE, AlarmRequest
from connect_kv.testing.ports import free_ports
from connect_kv.testing.processes import NodeProcess, ProcessCluster, until
from tests.packaging.test_monitoring import FOLDER, tool_or_skip

DAYS = 3
"""That certificates are good for: too few."""
SCRAPE = """
global: {{scrape_interval: 500ms, evaluation_interval: 500ms}}
rule_files: [alerts.yml]
scrape_configs:
  - job_name: connect-kv
    static_configs: [{{targets: [{targets}], labels: {{cluster: main}}}}]
"""


def impatient(rules: str) -> str:
    """The same rules, for a test that has seconds where an operator has minutes."""
    rules = re.sub(r"^( +for:) .*$", r"\1 1s", rules, flags=re.MULTILINE)
    return re.sub(r"\[\d+m\]", "[10s]", rules)


@contextmanager
def prometheus(directory: Path, targets: list[str]) -> Iterator[str]:
    """One on loopback that watches these; its address."""
    (directory / "alerts.yml").write_text(impatient((FOLDER / "alerts.yml").read_text()))
    quoted = ", ".join(f"'{one}'" for one in targets)
    (directory / "prometheus.yml").write_text(SCRAPE.format(targets=quoted))
    address = f"127.0.0.1:{free_ports(1)[0]}"
    with (directory / "prometheus.log").open("w") as log:
        process = subprocess.Popen(
            [
                tool_or_skip("prometheus"),
                f"--config.file={directory / 'prometheus.yml'}",
                f"--storage.tsdb.path={directory / 'tsdb'}",
                f"--web.listen-address={address}",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        yield address
    finally:
        process.terminate()
        process.wait(20)


async def firing(address: str) -> set[str]:
    """Names of the alerts that do."""
    async with aiohttp.ClientSession() as session, session.get(f"http://{address}/api/v1/alerts") as answer:
        found = (await answer.json())["data"]["alerts"]
    return {one["labels"]["alertname"] for one in found if one["state"] == "firing"}


class Alarms:
    """Waits for alerts, and says how long each took."""

    def __init__(self, address: str) -> None:
        self._address = address

    async def fired(self, *names: str) -> None:
        wanted = {f"ConnectKv{name}" for name in names}
        began = asyncio.get_running_loop().time()

        async def all_of_them() -> bool:
            return wanted <= await firing(self._address)

        await until(all_of_them, 60, f"{', '.join(sorted(wanted))} to fire")
        print(f"{', '.join(sorted(wanted))}: after {asyncio.get_running_loop().time() - began:.1f} s")


async def steadily(work: Callable[[], Awaitable[object]]) -> None:
    while True:
        with suppress(errors.ConnectKvError):
            await work()
        await asyncio.sleep(0.02)


def cluster_of(directory: Path) -> ProcessCluster:
    """Members whose disks and clocks can be hurt, with certificates that are soon over."""
    certificates = directory / "certificates"
    make_authority(certificates)
    cluster = ProcessCluster(directory / "nodes", machines={"counter": "tests.cluster.machines:Counter"})
    for node in cluster.nodes:
        make_node(certificates, node.name, ["127.0.0.1"], days=DAYS)
        cert, key, ca = (certificates / one for one in (f"{node.name}.pem", f"{node.name}.key", "ca.pem"))
        files = {"cert-file": cert, "key-file": key, "trusted-ca-file": ca}
        node.arguments += [word for name, path in files.items() for word in (f"--peer-{name}", str(path))]
        node.program = "chaos.faulty_machine"
        node.environment = {
            faulty_machine.DISK: str(directory / f"{node.name}.disk"),
            faulty_machine.CLOCK: str(directory / f"{node.name}.clock"),
        }
    return cluster


async def test_alerts_fire_by_real_faults_and_by_nothing_else(tmp_path: Path) -> None:
    tool_or_skip("prometheus")
    async with cluster_of(tmp_path) as cluster:
        targets = [f"127.0.0.1:{node.http_port}" for node in cluster.nodes]
        async with cluster.client() as client:
            with prometheus(tmp_path, targets) as address:
                alarms = Alarms(address)
                await until(lambda: _answers(address), 30, "Prometheus to answer")
                await client.call_json("counter", "increment")
                await alarms.fired("CertificateExpires")
                assert await firing(address) == {"ConnectKvCertificateExpires"}, "all else is well"
                leader = await cluster.leader()
                other, third = (node for node in cluster.nodes if node is not leader)
                _plant(third, faulty_machine.CLOCK, "3600")
                await alarms.fired("ClockDiffers")
                _plant(third, faulty_machine.CLOCK, "0")

                _plant(leader, faulty_machine.DISK, "slow 0.3")
                _plant(other, faulty_machine.DISK, "slow 0.3")
                writing = asyncio.create_task(steadily(lambda: client.put("k", "v")))
                await alarms.fired("SlowFsync")
                writing.cancel()
                await asyncio.gather(writing, return_exceptions=True)
                _plant(leader, faulty_machine.DISK, "")
                _plant(other, faulty_machine.DISK, "")

                await other.stop()
                await alarms.fired("MemberDown", "PeerCutOff")
                other.arguments = _without_machine(other.arguments)
                await other.start()
                await client.call_json("counter", "increment", timeout=30)
                await alarms.fired("MachineSuspended")

                endpoint = client.maintenance._endpoints.find(leader.client_address)
                alarm = AlarmRequest(action=AlarmRequest.ACTIVATE, memberID=1, alarm=NOSPACE)
                await endpoint.stubs.alarm(alarm, timeout=20)
                await alarms.fired("NoSpace")

                await other.kill()
                await third.kill()
                await alarms.fired("MajorityLost", "NoLeader")


def _plant(node: NodeProcess, fault: str, text: str) -> None:
    Path(node.environment[fault]).write_text(text)


def _without_machine(arguments: list[str]) -> list[str]:
    at = arguments.index("--machine")
    return arguments[:at] + arguments[at + 2 :]


async def _answers(address: str) -> bool:
    with suppress(aiohttp.ClientError):
        await firing(address)
        return True
    return False
