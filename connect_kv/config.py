"""ServerConfig: what one node is told, from flags, environment and file, checked in one place."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from connect_kv import hosts
from connect_kv.credentials import VERSIONS, openssl_ciphers
from connect_kv.errors import ConfigError
from connect_kv.framework.cluster import NAME_VARIABLE, Cluster
from connect_kv.framework.cluster_file import check, constraints
from connect_kv.framework.types import READY_MADE
from connect_kv.options import OPTIONS, Kind
from connect_kv.units import seconds, size, whole

DEFAULT_DATA_DIR = "connect-kv.data"
DEFAULT_NAME = "default"

MAX_REQUEST_BYTES = 32 << 20
"""The largest `max_request_bytes`: members take no larger messages from each other."""

Positive = Annotated[int, Meta(gt=0, description="a positive number")]
NotNegative = Annotated[int, Meta(ge=0, description="0 or more")]

_NEGATIVE = re.compile(r"-[0-9]+")
ANY_HOST = frozenset(("0.0.0.0", "::", "[::]", "*"))
"""Listened on, and nobody's address."""
_ORIGIN = re.compile(r"https?://[^/?#\s:]+:[0-9]{1,5}|https?://\[[0-9a-fA-F:.]+\]:[0-9]{1,5}")


@dataclass(frozen=True, slots=True, kw_only=True)
class InitialMember:
    """One member of the cluster as it is first started."""

    name: str
    peer_address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineSpec:
    """A user machine to be imported: ``name=module:Class``."""

    name: str
    module: str
    attribute: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """Everything one node is told. Addresses are ``host:port``; an empty one is off."""

    name: str = DEFAULT_NAME
    data_dir: Path = Path(DEFAULT_DATA_DIR)
    listen_client: str = "127.0.0.1:2379"
    also_listen_client: tuple[str, ...] = ()
    """Further addresses for clients; only `connect-kv etcd` gives some."""
    listen_peer: str = "127.0.0.1:2380"
    listen_http: str = "127.0.0.1:2381"
    """Empty: no HTTP."""
    advertise_client: str = ""
    """What clients are told; defaults to `listen_client`."""
    advertise_peer: str = ""
    """What other members dial; defaults to `listen_peer`."""
    initial_cluster: tuple[InitialMember, ...] = ()
    """Defaults to this node alone. Only read when the data directory is empty."""
    initial_cluster_state: str = "new"
    """``new``, or ``existing`` to join a running cluster that has added this member."""
    initial_cluster_token: str = ""
    """Tells clusters with the same names and addresses apart."""
    machines: tuple[MachineSpec, ...] = ()
    accept_changed_code: str = ""
    cert_file: Path | None = None
    """For clients and HTTP; with it both speak TLS."""
    key_file: Path | None = None
    trusted_ca_file: Path | None = None
    """Who signs clients' certificates; with it each client must have one."""
    client_cert_auth: bool = False
    """Demanded explicitly; `trusted_ca_file` alone demands one as well."""
    client_crl_file: Path | None = None
    client_cert_allowed_cn: str = ""
    client_cert_allowed_hostname: str = ""
    http_tls: str = "open"
    """``open``: TLS without clients' certificates, if clients have TLS; ``mutual``: with; ``off``: none."""
    auto_tls: bool = False
    """TLS for clients and HTTP by a certificate of its own making, unless there is another."""
    self_signed_cert_validity: Annotated[int, Meta(ge=1, le=100, description="1 to 100 years")] = 1
    """Years that such a certificate is good."""
    enable_grpc_gateway: bool = True
    """Whether HTTP has the JSON gateway."""
    cors: str = "*"
    """Origins whose pages may read answers over HTTP."""
    host_whitelist: str = "*"
    """Names in ``Host`` that plain HTTP answers."""
    dashboard: str = "read"
    """The page for browsers: ``off``, ``read`` or ``write``; it needs the gateway."""
    peer_cert_file: Path | None = None
    peer_key_file: Path | None = None
    peer_trusted_ca_file: Path | None = None
    peer_crl_file: Path | None = None
    peer_auto_tls: bool = False
    """TLS between members by certificates of their own making: encryption, and no trust."""
    peer_cert_allowed_cn: str = ""
    peer_cert_allowed_hostname: str = ""
    tls_min_version: str = "TLS1.2"
    cipher_suites: str = ""
    """Of TLS 1.2; empty: all that HTTP/2 allows."""
    heartbeat_ms: Positive = 100
    election_ms: Positive = 1000
    tick_ms: Positive = 50
    max_request_bytes: Annotated[
        int, Meta(gt=0, le=MAX_REQUEST_BYTES, description=f"a positive number, at most {MAX_REQUEST_BYTES}")
    ] = 1536 * 1024
    snapshot_count: Positive = 10_000
    """Applied entries between two points at which the log is compacted."""
    catch_up_entries: Positive = 5_000
    """Entries kept behind that point for slow followers."""
    max_learners: int = 1
    """Learners there may be at once."""
    quota_bytes: int = 2 << 30
    """Space the key/value data may take; negative: no limit."""
    auto_compaction: str = ""
    """History to keep: a duration such as ``30s`` or ``12h``, or a number of revisions; empty: all."""
    auth_token: str = "simple"
    """How tokens are made: ``simple``, or ``jwt,...`` with etcd's settings."""
    auth_token_ttl: Positive = 300
    """Seconds that a simple token lives without being used."""
    bcrypt_cost: Annotated[int, Meta(ge=4, le=31, description="4 to 31")] = 10
    """Of passwords set from now on: 4 to 31; each step doubles what a guess costs."""
    max_connections: Positive = 16_384
    max_handshakes: Positive = 1024
    """Connections of clients that have not shown who they are, in a handshake for one."""
    max_streams_per_user: NotNegative = 8192
    """These three: 0 is no limit (`services.user_quotas`)."""
    max_watches_per_user: NotNegative = 500_000
    max_sessions_per_user: NotNegative = 5000
    corruption_check_seconds: NotNegative = 12 * 3600
    """How often the members' data is compared; 0: never."""
    grpc_server: str = "door"
    """What serves clients: ``door``, our own, or ``grpcio``."""
    log_format: str = "text"
    """``text`` or ``json``."""
    log_level: str = "info"
    audit_log: Path | None = None
    audit_level: str = "writes"
    """What is in it: ``auth``, ``writes`` or ``reads`` (`services.audit`)."""
    tracing: bool = False
    """Whether spans are sent of calls that ask for it."""
    client_addresses: Mapping[str, str] = field(default_factory=dict)
    """Client addresses of initial members by name, where the file knows them."""
    origins: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    """Where each field came from, for messages about it: a flag, a variable, or a key of the file."""

    def __post_init__(self) -> None:
        _check(self)

    @property
    def client_address(self) -> str:
        """What clients are told."""
        return self.advertise_client or self.listen_client

    @property
    def peer_address(self) -> str:
        """What other members dial."""
        return self.advertise_peer or self.listen_peer

    @property
    def members(self) -> tuple[InitialMember, ...]:
        """The initial cluster; this node alone if none was given."""
        return self.initial_cluster or (InitialMember(name=self.name, peer_address=self.peer_address),)

    @property
    def retention(self) -> tuple[float, int]:
        """`auto_compaction` as (seconds, revisions); at most one is not 0. Raises ConfigError."""
        text = self.auto_compaction
        if not text or text == "0":
            return 0, 0
        try:
            found = (0, int(text)) if text.isdecimal() else (seconds(text), 0)
        except ValueError:
            found = 0, 0
        if not any(found):
            raise ConfigError(
                f"auto_compaction: {text!r}: expected a duration such as 30s or 12h, or a number of revisions"
            )
        return found

    @property
    def client_scheme(self) -> str:
        """Of the addresses that clients are told."""
        return "https" if self.cert_file or self.auto_tls else "http"

    @property
    def peer_scheme(self) -> str:
        """Of the addresses that members have."""
        return "https" if self.peer_cert_file or self.peer_auto_tls else "http"

    @property
    def election_ticks(self) -> int:
        """Election timeout in ticks."""
        return self.election_ms // self.tick_ms

    @property
    def heartbeat_ticks(self) -> int:
        """Heartbeat interval in ticks."""
        return max(1, self.heartbeat_ms // self.tick_ms)

    @property
    def time_limit(self) -> float:
        """Seconds a request may take on the server: 5 and two election timeouts."""
        return 5.0 + 2 * self.election_ms / 1000


_CONSTRAINTS = constraints(ServerConfig)


def from_options(options: Mapping[str, object], environ: Mapping[str, str]) -> ServerConfig:
    """What ``serve`` was told; the option ``config`` (or CONNECT_KV_CONFIG) names a Connect.toml.

    Raises ConfigError.
    """
    path = options.get("config") or environ.get(OPTIONS["config"].variable)
    if not path:
        return load(options, environ)
    name = options.get("name")
    cluster = Cluster.from_file(str(path), name=str(name) if name else None, environ=environ)
    return load(options, environ, cluster.server_settings(), file_name=str(path))


def from_cluster(cluster: Cluster, environ: Mapping[str, str]) -> ServerConfig:
    """For a program that has its Cluster; the environment may override all but which member it is.

    Raises ConfigError.
    """
    rest = {key: value for key, value in environ.items() if key != NAME_VARIABLE}
    return load({}, rest, cluster.server_settings(), file_name="Cluster")


def split_address(text: str, origin: str) -> tuple[str, int]:
    """``host:port`` in two. Raises ConfigError naming `origin`."""
    try:
        return hosts.split_address(text)
    except ValueError as error:
        raise ConfigError(f"{origin}: {error}") from None


def load(
    options: Mapping[str, object],
    environ: Mapping[str, str],
    file: Mapping[str, object] | None = None,
    *,
    file_name: str = "Connect.toml",
) -> ServerConfig:
    """Merge: an option given on the command line wins over the environment, that over the file.

    Keys are the field names of ServerConfig. What is None counts as not given, and so does an empty
    variable; an empty option is an error, for it is most often the name of a variable that is not set.
    Raises ConfigError naming where the wrong value came from.
    """
    values: dict[str, object] = {}
    origins: dict[str, str] = {}
    for key, option in OPTIONS.items():
        if option.kind is Kind.FILE:  # its content is `file`
            continue
        found = _find(key, options, environ, file or {}, file_name)
        if found is None:
            continue
        raw, origin = found
        values[key] = _READERS[option.kind](raw, origin)
        origins[key] = origin
    if file and "client_addresses" in file:
        values["client_addresses"] = file["client_addresses"]
    try:
        return ServerConfig(**values, origins=origins)  # type: ignore[arg-type]  # each parser returns its field's type
    except ConfigError as error:
        key, _, rest = str(error).partition(": ")
        raise ConfigError(f"{origins.get(key, _flag(key))}: {rest}") from None


def _find(
    key: str, options: Mapping[str, object], environ: Mapping[str, str], file: Mapping[str, object], name: str
) -> tuple[object, str] | None:
    variable = OPTIONS[key].variable
    if options.get(key) == "" and key != "listen_http":
        raise ConfigError(f"{_flag(key)}: '': expected a value")
    for source, origin in (
        (options.get(key), _flag(key)),
        (environ.get(variable), variable),
        (file.get(key), f"{name}: {OPTIONS[key].file_key}"),
    ):
        off = source == "" and key == "listen_http"
        if source is not None and (off or source not in ("", ())):
            return source, origin
    return None


def _flag(key: str) -> str:
    return OPTIONS[key].flag if key in OPTIONS else key


def _text(raw: object, origin: str) -> str:
    if not isinstance(raw, str | Path):
        raise ConfigError(f"{origin}: {raw!r}: expected text")
    return str(raw)


def _path(raw: object, origin: str) -> Path:
    return Path(_text(raw, origin))


def _number(raw: object, origin: str) -> int:
    try:
        return int(str(raw))
    except ValueError:
        raise ConfigError(f"{origin}: {raw!r}: expected a whole number") from None


def _switch(raw: object, origin: str) -> bool:
    text = str(raw).lower()
    if text not in ("true", "false"):
        raise ConfigError(f"{origin}: {raw!r}: expected true or false")
    return text == "true"


def _whole(unit: str) -> Callable[[object, str], int]:
    """Reads a duration as a whole number of `unit`."""

    def read(raw: object, origin: str) -> int:
        try:
            return whole(str(raw), unit)
        except ValueError as error:
            raise ConfigError(f"{origin}: {error}") from None

    return read


def _bytes(raw: object, origin: str) -> int:
    text = str(raw).strip()
    try:
        return -1 if _NEGATIVE.fullmatch(text) else size(text)
    except ValueError as error:
        raise ConfigError(f"{origin}: {error}") from None


def _pairs(raw: object, origin: str, example: str) -> list[tuple[str, str]]:
    """``name=value`` pairs, from one text with commas or from several texts."""
    if isinstance(raw, Mapping):
        return [(str(name), str(value)) for name, value in raw.items()]
    texts = raw.split(",") if isinstance(raw, str) else raw
    if not isinstance(texts, Sequence):
        raise ConfigError(f"{origin}: {raw!r}: expected {example}")
    pairs: list[tuple[str, str]] = []
    for text in texts:
        name, equals, value = str(text).strip().partition("=")
        if not equals or not name or not value:
            raise ConfigError(f"{origin}: {str(text)!r}: expected {example}")
        if name in dict(pairs):
            raise ConfigError(f"{origin}: {name!r} is given twice")
        pairs.append((name, value))
    return pairs


def _members(raw: object, origin: str) -> tuple[InitialMember, ...]:
    pairs = [
        (name, address.removeprefix("http://").removeprefix("https://"))  # as `etcdctl member add` prints it
        for name, address in _pairs(raw, origin, "NAME=HOST:PORT,...")
    ]
    for _, address in pairs:
        split_address(address, origin)
    return tuple(InitialMember(name=name, peer_address=address) for name, address in pairs)


def _machines(raw: object, origin: str) -> tuple[MachineSpec, ...]:
    specs = []
    for name, path in _pairs(raw, origin, "NAME=module:Class"):
        module, colon, attribute = path.partition(":")
        if not colon and module in READY_MADE:
            module, attribute = "connect_kv.types", module
        if not module or not attribute:
            raise ConfigError(
                f"{origin}: {name}={path}: expected NAME=module:Class, or one of {', '.join(READY_MADE)}"
            )
        specs.append(MachineSpec(name=name, module=module, attribute=attribute))
    return tuple(specs)


_READERS: Mapping[Kind, Callable[[object, str], object]] = {
    Kind.TEXT: _text,
    Kind.NAME: _text,
    Kind.PATH: _path,
    Kind.CREDENTIAL: _path,
    Kind.OUTPUT: _path,
    Kind.SWITCH: _switch,
    Kind.ADDRESS: _text,
    Kind.NUMBER: _number,
    Kind.MILLISECONDS: _whole("ms"),
    Kind.SECONDS: _whole("s"),
    Kind.BYTES: _bytes,
    Kind.MEMBERS: _members,
    Kind.MACHINES: _machines,
    Kind.HISTORY: _text,
}
"""How the text of each kind of option is read."""


def _check(config: ServerConfig) -> None:
    """Contradictions. Messages start with the key, which `load` replaces by where it came from."""
    _check_fields(config)
    _check_addresses(config)
    _check_cluster(config)
    _check_numbers(config)
    _check_tls(config)
    _check_http(config)


def _check_fields(config: ServerConfig) -> None:
    """Each by itself: what its type allows, and one of its choices."""
    for key, wanted in _CONSTRAINTS.items():
        try:
            check(getattr(config, key), wanted)
        except ValueError as error:
            raise ConfigError(f"{key}: {getattr(config, key)!r}: {error}") from None
    for key, option in OPTIONS.items():
        # Which versions of TLS there are is told in etcd's words, below.
        choices = option.choices if key != "tls_min_version" else ()
        if choices and getattr(config, key) not in choices:
            expected = f"{', '.join(choices[:-1])} or {choices[-1]}"
            raise ConfigError(f"{key}: {getattr(config, key)!r}: expected {expected}")


def _check_addresses(config: ServerConfig) -> None:
    seen: dict[str, str] = {}
    for key in ("listen_client", "listen_peer", "listen_http"):
        address = getattr(config, key)
        if key == "listen_http" and not address:
            continue
        _, port = split_address(address, key)
        if port and address in seen:
            raise ConfigError(f"{key}: {address} is already used by {_flag(seen[address])}")
        seen[address] = key
    for key, address in (
        ("advertise_client", config.client_address),
        ("advertise_peer", config.peer_address),
    ):
        host, _ = split_address(address, key)
        if host in ANY_HOST:
            raise ConfigError(f"{key}: nobody can connect to {address}; give the address others reach")


def _check_http(config: ServerConfig) -> None:
    for origin in filter(None, map(str.strip, config.cors.split(","))):
        if origin != "*" and not _ORIGIN.fullmatch(origin):
            raise ConfigError(
                f"cors: {origin!r}: expected * or an origin with its port: http://a.example:8000"
            )


def _check_tls(config: ServerConfig) -> None:
    cert = config.peer_cert_file
    own = config.peer_auto_tls and cert is not None and config.data_dir in cert.parents
    if cert and not config.peer_trusted_ca_file and not own:
        # Nobody could be told from a member.
        raise ConfigError(f"peer_cert_file: needs {_flag('peer_trusted_ca_file')} too")
    if config.trusted_ca_file and not (config.cert_file or config.auto_tls):
        raise ConfigError(f"trusted_ca_file: needs {_flag('cert_file')} too")
    for key, other in (
        ("cert_file", "key_file"),
        ("key_file", "cert_file"),
        ("client_cert_auth", "trusted_ca_file"),
        ("client_crl_file", "trusted_ca_file"),
        ("client_cert_allowed_cn", "trusted_ca_file"),
        ("client_cert_allowed_hostname", "trusted_ca_file"),
        ("peer_cert_file", "peer_key_file"),
        ("peer_key_file", "peer_cert_file"),
        ("peer_trusted_ca_file", "peer_cert_file"),
        ("peer_crl_file", "peer_trusted_ca_file"),
        ("peer_cert_allowed_cn", "peer_trusted_ca_file"),
        ("peer_cert_allowed_hostname", "peer_trusted_ca_file"),
    ):
        if getattr(config, key) and not getattr(config, other):
            raise ConfigError(f"{key}: needs {_flag(other)} too")
    for door in ("client", "peer"):
        if getattr(config, f"{door}_cert_allowed_cn") and getattr(config, f"{door}_cert_allowed_hostname"):
            raise ConfigError(
                f"{door}_cert_allowed_cn: excludes {_flag(f'{door}_cert_allowed_hostname')}: give one of them"
            )
    if config.http_tls == "mutual" and not config.trusted_ca_file:
        raise ConfigError(f"http_tls: mutual needs {_flag('trusted_ca_file')} too")
    if config.tls_min_version not in VERSIONS:
        raise ConfigError(
            f'tls_min_version: unexpected TLS version "{config.tls_min_version}" '
            f"(must be one of: {', '.join(VERSIONS)})"
        )
    try:
        chosen = openssl_ciphers(config.cipher_suites)
    except ConfigError as error:
        raise ConfigError(f"cipher_suites: {error}") from None
    if chosen and config.tls_min_version == "TLS1.3":
        raise ConfigError("cipher_suites: cipher suites cannot be configured when only TLS1.3 is enabled")


def _check_cluster(config: ServerConfig) -> None:
    if not config.name or any(character in config.name for character in "=,/ \n"):
        raise ConfigError(f"name: {config.name!r}: expected a name without '=', ',', '/' and blanks")
    addresses: dict[str, str] = {}
    for member in config.initial_cluster:
        if member.peer_address in addresses:
            other = addresses[member.peer_address]
            raise ConfigError(
                f"initial_cluster: {member.name} and {other} both have the address {member.peer_address}"
            )
        addresses[member.peer_address] = member.name


def check_own_entry(config: ServerConfig) -> None:
    """Raise ConfigError if the initial cluster does not fit this node: a first start needs that it does."""
    origin = config.origins.get("initial_cluster", _flag("initial_cluster"))
    own = next((member for member in config.members if member.name == config.name), None)
    if own is None:
        names = ", ".join(member.name for member in config.initial_cluster)
        raise ConfigError(f"{origin}: this node, {config.name!r}, is not among {names}")
    if own.peer_address != config.peer_address:
        raise ConfigError(
            f"{origin}: {config.name} has the address {own.peer_address}, "
            f"but --advertise-peer says {config.peer_address}"
        )


def _check_numbers(config: ServerConfig) -> None:
    _ = config.retention
    if config.heartbeat_ms < config.tick_ms:
        raise ConfigError(f"heartbeat_ms: {config.heartbeat_ms}: less than one tick of {config.tick_ms} ms")
    if config.election_ms < 5 * config.heartbeat_ms:
        raise ConfigError(
            f"election_ms: {config.election_ms}: expected at least five heartbeats ({config.heartbeat_ms} ms)"
        )
    if config.election_ms > 50_000:
        raise ConfigError(f"election_ms: {config.election_ms}: more than 50000")
