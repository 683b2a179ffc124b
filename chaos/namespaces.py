"""Each node in a network namespace of its own, joined by a switch that loses, delays and repeats packets.

Needs root and /dev/net/tun. Every namespace has one tunnel device whose other end is a file descriptor of
the switch; clients have one too, in the namespace of this process. Faults of links need no qdisc of the
kernel (netem is often missing), and TCP sees what it would see on a bad network.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict

from connect_kv.testing.network import NodeLocation, Quality

TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
PORTS = (2379, 2380, 2381)
CLIENTS = 254
"""Last octet of the address that clients come from."""
MTU = 9000


class NamespacesNotAllowed(OSError):
    """This process may not make network namespaces or tunnels."""


class NamespaceNetwork:
    """See the module."""

    kind = "network namespaces and a switch of packets"

    def __init__(self) -> None:
        self._number = os.getpid() % 30_000
        self._prefix = f"10.{64 + self._number // 250}.{self._number % 250}"
        self._octets: dict[str, int] = {}
        self._namespaces: list[str] = []
        self._descriptors: list[int] = []
        self._switch: subprocess.Popen[bytes] | None = None

    async def start(self, names: Sequence[str]) -> dict[str, NodeLocation]:
        """Raises NamespacesNotAllowed; nothing is left behind then."""
        if not shutil.which("ip"):
            raise NamespacesNotAllowed("the command ip (iproute2) is not installed")
        try:
            tunnels = {CLIENTS: self._tunnel(f"ckv{self._number}c", None, CLIENTS)}
            for octet, name in enumerate(names, 1):
                namespace = f"ckv{self._number}-{name}"
                _ip("netns", "add", namespace)
                self._namespaces.append(namespace)
                _ip("-n", namespace, "link", "set", "lo", "up")
                tunnels[octet] = self._tunnel(f"ckv{self._number}{name}", namespace, octet)
                self._octets[name] = octet
        except (OSError, subprocess.CalledProcessError) as error:
            await self.close()
            reason = (
                error.stderr.decode().strip() if isinstance(error, subprocess.CalledProcessError) else error
            )
            raise NamespacesNotAllowed(f"no network namespaces here: {reason}") from error
        self._switch = subprocess.Popen(  # noqa: ASYNC220  # returns at once
            [sys.executable, "-m", "chaos.switch"]
            + [f"{octet}={descriptor}" for octet, descriptor in tunnels.items()],
            stdin=subprocess.PIPE,
            pass_fds=list(tunnels.values()),
        )
        return {name: self._place(name) for name in names}

    def started(self, name: str, pid: int) -> None:
        """Packets say where they come from: nothing to note."""

    def set(self, source: str, target: str, quality: Quality) -> None:
        """Takes effect within milliseconds."""
        assert self._switch is not None
        assert self._switch.stdin is not None
        line = json.dumps([self._octets[source], self._octets[target], asdict(quality)])
        self._switch.stdin.write(line.encode() + b"\n")
        self._switch.stdin.flush()

    async def close(self) -> None:
        """Remove namespaces and devices."""
        if self._switch is not None and self._switch.stdin is not None:
            with suppress(OSError):
                self._switch.stdin.close()
            await asyncio.to_thread(self._switch.wait)
            self._switch = None
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors.clear()
        for namespace in self._namespaces:
            with suppress(subprocess.CalledProcessError):
                _ip("netns", "del", namespace)
        self._namespaces.clear()

    def _place(self, name: str) -> NodeLocation:
        host = f"{self._prefix}.{self._octets[name]}"
        wrapper = ("ip", "netns", "exec", f"ckv{self._number}-{name}")
        return NodeLocation(host, PORTS, f"{host}:{PORTS[1]}", wrapper)

    def _tunnel(self, device: str, namespace: str | None, octet: int) -> int:
        """A device with the address of that octet; returns the descriptor that is its other end."""
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        self._descriptors.append(descriptor)
        fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", device.encode(), IFF_TUN | IFF_NO_PI))
        inside = [] if namespace is None else ["-n", namespace]
        if namespace is not None:
            _ip("link", "set", device, "netns", namespace)
        _ip(*inside, "addr", "add", f"{self._prefix}.{octet}/24", "dev", device)
        _ip(*inside, "link", "set", device, "mtu", str(MTU), "txqueuelen", "2000", "up")
        return descriptor


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=10)
