"""etcd's own clients over TLS and mTLS, users by password and by certificate, while the leader is killed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from connect_kv.testing.processes import until
from tests.clients.test_clients import COMMANDS, TIMEOUT, Program, endpoints_for
from tests.etcd import ENVIRONMENT, find_etcdctl, skip_loudly
from tests.security.secure import PASSWORDS, SecureCluster, certify, environment

pytestmark = pytest.mark.cluster

WAYS = {
    "TLS, password": (False, {"user": "root"}),
    "mTLS, password": (True, {"certificate": "al", "user": "root"}),
    "mTLS, certificate": (True, {"certificate": "root"}),
}
"""Whether members demand certificates; what a client shows. A token counts before a certificate."""
EVERY = os.environ.get("CONNECT_KV_FULL", "") == "1"
CHOSEN = list(WAYS) if EVERY else ["mTLS, certificate"]


class Etcdctl:
    """etcdctl's puts, one process each, and its watch."""

    def __init__(self, program: str, endpoints: str, shown: Mapping[str, str], prefix: str) -> None:
        self.program = program
        self.prefix = prefix
        self.words = ["--endpoints", ",".join(f"https://{one}" for one in endpoints.split(","))]
        self.words += ["--cacert", shown["CLIENT_CA"], "--command-timeout", "20s", "--dial-timeout", "5s"]
        if "CLIENT_CERT" in shown:
            self.words += ["--cert", shown["CLIENT_CERT"], "--key", shown["CLIENT_KEY"]]
        if "CLIENT_USER" in shown:
            self.words += ["--user", f"{shown['CLIENT_USER']}:{shown['CLIENT_PASSWORD']}"]

    async def __call__(self, *words: str) -> tuple[int, str, str]:
        process = await self.start(*words)
        async with asyncio.timeout(TIMEOUT):
            out, err = await process.communicate()
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()

    async def start(self, *words: str) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            self.program,
            *self.words,
            *words,
            stdout=pipe,
            stderr=pipe,
            env={**ENVIRONMENT, "ETCDCTL_API": "3"},
        )

    async def through_faults(self, ready: asyncio.Event, finish: asyncio.Event) -> str:
        """Put until told to finish; its watch has seen every put that was acknowledged."""
        watch = await self.start("watch", "--prefix", f"{self.prefix}/")
        seen: set[str] = set()
        listening = asyncio.create_task(_listen(watch, seen))
        done: list[str] = []
        refused = number = 0
        try:
            async with asyncio.timeout(TIMEOUT):
                while not seen:  # it does not say when it is in force
                    await self("put", f"{self.prefix}/begin", "x")
            while not finish.is_set() or len(done) < 8:
                key = f"{self.prefix}/{number}"
                number += 1
                code, _, err = await self("put", key, "x")
                if code == 0:
                    done.append(key)
                else:
                    refused += 1
                    assert "permission denied" not in err, err
                    assert "auth" not in err.lower(), err
                if len(done) == 3:
                    ready.set()

            async def told() -> bool:
                return set(done) <= seen

            await until(told, TIMEOUT, f"the watch of {self.program} to see what was acknowledged")
        finally:
            watch.kill()
            await watch.wait()
            await listening
        code, out, err = await self("get", "--prefix", "--keys-only", f"{self.prefix}/")
        assert code == 0, err
        assert set(done) <= set(out.split())
        return f"{len(done)} puts, {refused} not acknowledged"


async def _listen(watch: asyncio.subprocess.Process, seen: set[str]) -> None:
    assert watch.stdout is not None
    while line := await watch.stdout.readline():
        if b"/" in line:
            seen.add(line.decode().strip())


def programs() -> dict[str, str]:
    found = find_etcdctl()
    for version in ("3.4", "3.5"):
        if version not in found:
            skip_loudly(f"no etcdctl {version}")
    return found


@pytest.mark.parametrize("way", CHOSEN)
async def test_all_of_them_work_and_go_on_when_the_leader_is_killed(way: str, tmp_path: Path) -> None:
    mutual, shown = WAYS[way]
    folder = certify(tmp_path / "certs", "al")
    told = environment(folder, **shown)
    etcdctls = programs()
    for command in COMMANDS.values():
        command()
    async with SecureCluster(tmp_path, folder, mutual=mutual) as cluster:
        await cluster.found_users()
        for client in COMMANDS:
            for endpoints in endpoints_for(client, cluster.nodes):
                program = await Program.start(client, endpoints, "session", told)
                print(client, await program.end())
            async with cluster.client() as root:
                await root.delete("", prefix=True)  # each of them begins with nothing
        leader = await cluster.leader()
        others = [node for node in cluster.nodes if node is not leader]
        every = ",".join(node.client_address for node in [leader, *others])
        running = [
            await Program.start(
                client,
                others[0].client_address if client == "aetcd" else every,
                "faults",
                {**told, "CLIENT_PREFIX": client},
            )
            for client in COMMANDS
        ]
        ready = {version: asyncio.Event() for version in ("3.4", "3.5")}
        finish = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            puts = [
                tasks.create_task(
                    Etcdctl(etcdctls[version], every, told, f"etcdctl-{version}").through_faults(one, finish)
                )
                for version, one in ready.items()
            ]
            for program in running:
                await program.line("READY")
            for one in ready.values():
                await one.wait()
            await leader.kill()
            await cluster.leader()
            await leader.start()
            await leader.ready()
            finish.set()
            for program in running:
                print(await program.end("finish\n"))
        print([task.result() for task in puts])


async def test_a_user_with_few_rights_has_just_these(tmp_path: Path) -> None:
    """By password and by certificate, through each etcdctl."""
    folder = certify(tmp_path / "certs", "al", "stranger")
    async with SecureCluster(tmp_path, folder) as cluster:
        await cluster.found_users()
        every = ",".join(node.client_address for node in cluster.nodes)
        for version, program in find_etcdctl().items():
            for shown in ({"certificate": "al"}, {"certificate": "stranger", "user": "al"}):
                al = Etcdctl(program, every, environment(folder, **shown), "k")
                code, out, err = await al("put", "k/1", "v")
                assert (code, out) == (0, "OK\n"), (version, shown, err)
                code, _, err = await al("put", "other", "v")
                assert code == 1
                assert "permission denied" in err
            stranger = Etcdctl(program, every, environment(folder, certificate="stranger"), "k")
            code, _, err = await stranger("get", "k/1")
            assert (code, "permission denied" in err) == (1, True), err
            wrong = {**environment(folder, certificate="al", user="al"), "CLIENT_PASSWORD": "wrong"}
            code, _, err = await Etcdctl(program, every, wrong, "k")("get", "k/1")
            assert code != 0
            assert "authentication failed, invalid user ID or password" in err
    assert PASSWORDS["al"] not in "".join(node.log_file.read_text() for node in cluster.nodes)
