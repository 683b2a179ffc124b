"""Cluster: who takes part and where, from Connect.toml, a dict or keyword arguments."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from connect_kv.errors import ConfigError
from connect_kv.framework.cluster_file import Host, Name, Port, PortOrNone, Reading, Text, refuse_giants
from connect_kv.options import FILE_SETTINGS, OPTIONS

__all__ = ["Cluster", "Node"]

NAME_VARIABLE = OPTIONS["name"].variable
CLIENT_PORT, PEER_PORT, HTTP_PORT = 2379, 2380, 2381


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One member of a cluster as its file describes it."""

    name: Name
    host: Host = "127.0.0.1"
    client_port: Port = CLIENT_PORT
    peer_port: Port = PEER_PORT
    http_port: PortOrNone = HTTP_PORT
    """0: no HTTP."""

    @property
    def id(self) -> str:
        """What it is called in the file; the number it has in the log is given when it first starts."""
        return self.name

    @property
    def client_address(self) -> str:
        """``host:port`` for clients."""
        return _address(self.host, self.client_port)

    @property
    def peer_address(self) -> str:
        """``host:port`` for other members."""
        return _address(self.host, self.peer_port)

    @property
    def http_address(self) -> str:
        """``host:port`` for health and metrics; empty if it has none."""
        return _address(self.host, self.http_port) if self.http_port else ""


class Cluster:
    """The members of a cluster, and which of them this process is.

    Raises ConfigError naming the file, line or key, and what was expected.
    """

    def __init__(
        self,
        *,
        node: str | None = None,
        members: Sequence[Node | Mapping[str, object]],
        data_dir: str | os.PathLike[str] | None = None,
        **settings: object,
    ) -> None:
        """`node` may be left out for a single member. `settings`: timeouts and limits, as in the file."""
        given: dict[str, object] = {"members": list(members), **settings}
        if node is not None:
            given["node"] = node
        if data_dir is not None:
            given["data_dir"] = os.fspath(data_dir)
        self._fill(Reading(given, "Cluster"), None)

    @classmethod
    def from_file(
        cls,
        path: str | os.PathLike[str] = "Connect.toml",
        *,
        name: str | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> Cluster:
        """Read a file. Which member this is: `name`, or CONNECT_KV_NAME, or ``node`` in the file."""
        try:
            text = Path(path).read_text(encoding="utf-8")
            given = tomllib.loads(text)
            refuse_giants(given, str(path))
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from None
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path}: is not UTF-8 text: {error}") from None
        except ValueError as error:  # a TOMLDecodeError, or a number of too many digits
            raise ConfigError(f"{path}: is not TOML: {error}") from None
        except RecursionError:
            raise ConfigError(f"{path}: is not TOML that we read: values are nested too deeply") from None
        variables = os.environ if environ is None else environ
        return cls._read(given, str(path), name or variables.get(NAME_VARIABLE))

    @classmethod
    def from_dict(cls, given: Mapping[str, object], *, name: str | None = None) -> Cluster:
        """A cluster from a dict with the content that a Connect.toml has."""
        return cls._read(given, "Cluster", name)

    @property
    def own(self) -> Node:
        """The member that this process is."""
        return self._own

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All members, in the order of the file."""
        return self._nodes

    @property
    def remotes(self) -> tuple[Node, ...]:
        """All members but this one."""
        return tuple(node for node in self._nodes if node is not self._own)

    @property
    def data_dir(self) -> Path:
        """Where this member keeps its data."""
        return self._data_dir

    @property
    def settings(self) -> Mapping[str, object]:
        """Timeouts and limits that were given."""
        return self._settings

    @property
    def client_address(self) -> str:
        """This member's ``host:port`` for clients."""
        return self._own.client_address

    @property
    def peer_address(self) -> str:
        """This member's ``host:port`` for other members."""
        return self._own.peer_address

    @property
    def node_id(self) -> str:
        """This member's id: its name."""
        return self._own.id

    @property
    def remote_client_addresses(self) -> tuple[str, ...]:
        """Of the other members, in the order of the file."""
        return tuple(node.client_address for node in self.remotes)

    @property
    def remote_peer_addresses(self) -> tuple[str, ...]:
        """Of the other members, in the order of the file."""
        return tuple(node.peer_address for node in self.remotes)

    @property
    def remote_node_ids(self) -> tuple[str, ...]:
        """Of the other members, in the order of the file."""
        return tuple(node.id for node in self.remotes)

    def node(self, id: str) -> Node:
        """The member with that id. Raises KeyError."""
        for node in self._nodes:
            if node.id == id:
                return node
        raise KeyError(f"no member {id!r}; there are {', '.join(node.id for node in self._nodes)}")

    def client_address_of(self, id: str) -> str:
        """Raises KeyError."""
        return self.node(id).client_address

    def peer_address_of(self, id: str) -> str:
        """Raises KeyError."""
        return self.node(id).peer_address

    def server_settings(self) -> dict[str, object]:
        """What a server of this member is to be told, by the names of its options."""
        own = self._own
        # Where it listens may be said apart from where others reach it: on all addresses of a container, say.
        advertised = {
            f"advertise_{door}": address
            for door, address in (("client", own.client_address), ("peer", own.peer_address))
            if f"listen_{door}" in self._settings
        }
        return {
            "name": own.name,
            "data_dir": str(self._data_dir),
            "listen_client": own.client_address,
            "listen_peer": own.peer_address,
            "listen_http": own.http_address,
            "initial_cluster": {node.name: node.peer_address for node in self._nodes},
            "client_addresses": {node.name: node.client_address for node in self._nodes},
            **advertised,
            **self._settings,
        }

    def __repr__(self) -> str:
        return f"Cluster(node={self._own.name!r}, members={list(self._nodes)!r})"

    @classmethod
    def _read(cls, given: Mapping[str, object], origin: str, name: str | None) -> Cluster:
        cluster = cls.__new__(cls)
        cluster._fill(Reading(given, origin), name)
        return cluster

    def _fill(self, reading: Reading, name: str | None) -> None:
        reading.refuse_others({"node", "data_dir", "members", *FILE_SETTINGS})
        self._nodes = tuple(
            member if isinstance(member, Node) else member.filled(Node)
            for member in reading.tables("members", Node)
        )
        _refuse_conflicts(reading, self._nodes)
        self._own = _own(reading, self._nodes, name)
        self._data_dir = Path(str(reading.value("data_dir", Text, f"data/{self._own.name}")))
        self._settings = MappingProxyType(
            {key: reading.given[key] for key in sorted(FILE_SETTINGS) if key in reading.given}
        )


def _own(reading: Reading, nodes: Sequence[Node], name: str | None) -> Node:
    names = ", ".join(node.name for node in nodes)
    if name is None and "node" in reading.given:
        name = reading.name("node")
    if name is None:
        if len(nodes) == 1:
            return nodes[0]
        raise reading.wrong("node", f"is missing: expected one of {names} (or set {NAME_VARIABLE})")
    for node in nodes:
        if node.name == name:
            return node
    raise reading.wrong("node", f"{name!r} is not among the members: expected one of {names}")


def _refuse_conflicts(reading: Reading, nodes: Sequence[Node]) -> None:
    """Names and addresses belong to one member each."""
    seen: dict[str, str] = {}
    for number, node in enumerate(nodes):
        ports = {
            "name": node.name,
            "client_port": node.client_address,
            "peer_port": node.peer_address,
            "http_port": node.http_address,
        }
        for key, value in ports.items():
            here = f"members[{number}].{key}"
            if value and value in seen:
                raise reading.wrong(here, f"{value} is used by {seen[value]} already")
            seen[value] = here


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
