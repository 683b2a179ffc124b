"""Everything a node can be told, in one table: by options of ``serve``, by Connect.toml, by the environment.

docs/configuration.md is made from it; `connect_kv.config` reads the values and checks them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto

PREFIX = "CONNECT_KV_"
"""What the names of our environment variables begin with."""


class Kind(Enum):
    """How a value is read."""

    TEXT = auto()
    NAME = auto()
    PATH = auto()
    FILE = auto()
    CREDENTIAL = auto()
    """A file with a certificate, a key or a list of them."""
    OUTPUT = auto()
    """A file that is written."""
    SWITCH = auto()
    """On or off; the bare option switches it on."""
    ADDRESS = auto()
    NUMBER = auto()
    MILLISECONDS = auto()
    """A duration; a bare number counts milliseconds."""
    SECONDS = auto()
    """A duration; a bare number counts seconds."""
    BYTES = auto()
    MEMBERS = auto()
    MACHINES = auto()
    HISTORY = auto()


_TAKES: Mapping[Kind, str] = {
    Kind.TEXT: "TEXT",
    Kind.NAME: "NAME",
    Kind.PATH: "DIR",
    Kind.FILE: "FILE",
    Kind.CREDENTIAL: "FILE",
    Kind.OUTPUT: "FILE",
    Kind.SWITCH: "true|false",
    Kind.ADDRESS: "HOST:PORT",
    Kind.NUMBER: "N",
    Kind.MILLISECONDS: "DURATION",
    Kind.SECONDS: "DURATION",
    Kind.BYTES: "SIZE",
    Kind.MEMBERS: "NAME=HOST:PORT,...",
    Kind.MACHINES: "NAME=module:Class",
    Kind.HISTORY: "KEEP",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One thing a node can be told."""

    key: str
    """Field of ServerConfig."""
    kind: Kind
    help: str
    default: str
    """In words; the value itself is that of the field."""
    choices: tuple[str, ...] = ()

    @property
    def flag(self) -> str:
        """The option of ``serve``."""
        return "--machine" if self.key == "machines" else "--" + self.key.replace("_", "-")

    @property
    def variable(self) -> str:
        """The environment variable."""
        return PREFIX + self.key.upper()

    @property
    def file_key(self) -> str:
        """The key in Connect.toml; empty if it has none there."""
        return _ELSEWHERE.get(self.key, self.key)

    @property
    def takes(self) -> str:
        """What it takes, as help shows it."""
        return "|".join(self.choices) if self.choices else _TAKES[self.kind]

    @property
    def repeats(self) -> bool:
        """Whether the option may be given several times."""
        return self.kind is Kind.MACHINES


_ELSEWHERE: Mapping[str, str] = {"name": "node", "initial_cluster": "[[members]]", "config": ""}

GROUPS: Mapping[str, tuple[Option, ...]] = {
    "Who and where": (
        Option(
            key="config",
            kind=Kind.FILE,
            help="A Connect.toml; options and environment win over it.",
            default="none",
        ),
        Option(key="name", kind=Kind.NAME, help="This member's name.", default="default"),
        Option(
            key="data_dir", kind=Kind.PATH, help="Where it keeps everything.", default="./connect-kv.data"
        ),
        Option(key="listen_client", kind=Kind.ADDRESS, help="For clients.", default="127.0.0.1:2379"),
        Option(key="listen_peer", kind=Kind.ADDRESS, help="For other members.", default="127.0.0.1:2380"),
        Option(
            key="listen_http",
            kind=Kind.ADDRESS,
            help="HTTP, which the clients' port answers as well; empty: none.",
            default="127.0.0.1:2381",
        ),
        Option(
            key="advertise_client",
            kind=Kind.ADDRESS,
            help="What clients are told.",
            default="--listen-client",
        ),
        Option(key="advertise_peer", kind=Kind.ADDRESS, help="What members dial.", default="--listen-peer"),
    ),
    "The cluster": (
        Option(
            key="initial_cluster",
            kind=Kind.MEMBERS,
            help="All members, when it first starts.",
            default="only this one",
        ),
        Option(
            key="initial_cluster_state",
            kind=Kind.TEXT,
            help="Found a cluster, or join one that has added this member.",
            default="new",
            choices=("new", "existing"),
        ),
        Option(
            key="initial_cluster_token",
            kind=Kind.TEXT,
            help="Tells clusters with the same names and addresses apart.",
            default="none",
        ),
        Option(
            key="machines",
            kind=Kind.MACHINES,
            help="Host this class, or one of connect_kv.types by its name (jobs=Queue); several times.",
            default="none",
        ),
        Option(
            key="accept_changed_code",
            kind=Kind.TEXT,
            help="Machines, with commas between them, whose code was changed without effect.",
            default="none",
        ),
        Option(key="max_learners", kind=Kind.NUMBER, help="Learners there may be at once.", default="1"),
    ),
    "TLS for clients": (
        Option(
            key="cert_file",
            kind=Kind.CREDENTIAL,
            help="Certificate for clients and HTTP, PEM, its chain after it; with it TLS is on.",
            default="none",
        ),
        Option(key="key_file", kind=Kind.CREDENTIAL, help="Its private key, PEM.", default="none"),
        Option(
            key="trusted_ca_file",
            kind=Kind.CREDENTIAL,
            help="Who signs clients' certificates; alone it already demands one of each client.",
            default="none",
        ),
        Option(
            key="client_cert_auth",
            kind=Kind.SWITCH,
            help="Demand a certificate of each client; needs --trusted-ca-file.",
            default="true with --trusted-ca-file",
        ),
        Option(
            key="client_crl_file",
            kind=Kind.CREDENTIAL,
            help="Certificates of clients that are revoked, PEM or DER.",
            default="none",
        ),
        Option(
            key="client_cert_allowed_cn",
            kind=Kind.TEXT,
            help="CommonNames that clients' certificates may have, with commas between them.",
            default="any",
        ),
        Option(
            key="client_cert_allowed_hostname",
            kind=Kind.TEXT,
            help="Alternative names, one of which clients' certificates must have.",
            default="any",
        ),
        Option(
            key="http_tls",
            kind=Kind.TEXT,
            help="The HTTP port: TLS as for clients but open to all, with clients' certificates, or neither.",
            default="open",
            choices=("open", "mutual", "off"),
        ),
        Option(
            key="auto_tls",
            kind=Kind.SWITCH,
            help="Without a certificate: make one that nobody signed, and keep it in the data directory.",
            default="false",
        ),
        Option(
            key="self_signed_cert_validity",
            kind=Kind.NUMBER,
            help="Years that such certificates are good.",
            default="1",
        ),
    ),
    "HTTP": (
        Option(
            key="enable_grpc_gateway",
            kind=Kind.SWITCH,
            help="The JSON gateway: etcd's API as JSON over HTTP.",
            default="true",
        ),
        Option(
            key="cors",
            kind=Kind.TEXT,
            help="Origins whose pages may read answers, with commas between them: http://a.example:8000.",
            default="*",
        ),
        Option(
            key="host_whitelist",
            kind=Kind.TEXT,
            help="Names in Host that plain HTTP answers, with commas between them.",
            default="*",
        ),
    ),
    "TLS between members": (
        Option(
            key="peer_cert_file",
            kind=Kind.CREDENTIAL,
            help="Certificate for other members, PEM; it both serves and dials.",
            default="none",
        ),
        Option(key="peer_key_file", kind=Kind.CREDENTIAL, help="Its private key, PEM.", default="none"),
        Option(
            key="peer_trusted_ca_file",
            kind=Kind.CREDENTIAL,
            help="Who signs members' certificates.",
            default="none",
        ),
        Option(
            key="peer_crl_file",
            kind=Kind.CREDENTIAL,
            help="Certificates of members that are revoked, PEM or DER.",
            default="none",
        ),
        Option(
            key="peer_cert_allowed_cn",
            kind=Kind.TEXT,
            help="CommonNames that members' certificates may have, with commas between them.",
            default="those of the members",
        ),
        Option(
            key="peer_cert_allowed_hostname",
            kind=Kind.TEXT,
            help="Alternative names, one of which members' certificates must have.",
            default="those of the members",
        ),
        Option(
            key="peer_auto_tls",
            kind=Kind.SWITCH,
            help="Without a certificate: make one that nobody signed; members believe each other unverified.",
            default="false",
        ),
    ),
    "TLS for all": (
        Option(
            key="tls_min_version",
            kind=Kind.TEXT,
            help="The oldest version that is spoken.",
            default="TLS1.2",
            choices=("TLS1.2", "TLS1.3"),
        ),
        Option(
            key="cipher_suites",
            kind=Kind.TEXT,
            help="Of TLS 1.2, by Go's names, with commas between them.",
            default="all that HTTP/2 allows",
        ),
    ),
    "Time": (
        Option(key="heartbeat_ms", kind=Kind.MILLISECONDS, help="Leader's heartbeat.", default="100ms"),
        Option(
            key="election_ms",
            kind=Kind.MILLISECONDS,
            help="Silence before an election; at least five heartbeats.",
            default="1s",
        ),
        Option(
            key="tick_ms",
            kind=Kind.MILLISECONDS,
            help="The step in which both are counted.",
            default="50ms",
        ),
        Option(
            key="corruption_check_seconds",
            kind=Kind.SECONDS,
            help="How often the members' data is compared; 0: never.",
            default="12h",
        ),
    ),
    "Users": (
        Option(
            key="auth_token",
            kind=Kind.TEXT,
            help="How tokens are made: simple, or jwt,sign-method=RS256,priv-key=FILE,...",
            default="simple",
        ),
        Option(
            key="auth_token_ttl",
            kind=Kind.SECONDS,
            help="How long a simple token lives unused.",
            default="5m",
        ),
        Option(
            key="bcrypt_cost",
            kind=Kind.NUMBER,
            help="Cost of passwords set from now on, 4 to 31.",
            default="10",
        ),
        Option(
            key="max_connections",
            kind=Kind.NUMBER,
            help="Connections of clients; one more is told to go away. With the gRPC library neither counts.",
            default="16384",
        ),
        Option(
            key="max_handshakes",
            kind=Kind.NUMBER,
            help="Of them, those that have not shown who they are; one more, and the oldest is closed.",
            default="1024",
        ),
        Option(
            key="max_streams_per_user",
            kind=Kind.NUMBER,
            help="Streams one user may have open on this member; 0: no limit. Root has none, here and below.",
            default="8192",
        ),
        Option(
            key="max_watches_per_user",
            kind=Kind.NUMBER,
            help="Watches one user may have on this member; 0: no limit.",
            default="500000",
        ),
        Option(
            key="max_sessions_per_user",
            kind=Kind.NUMBER,
            help="Sessions one user may have open; 0: no limit.",
            default="5000",
        ),
    ),
    "Space": (
        Option(
            key="max_request_bytes", kind=Kind.BYTES, help="Largest request, up to 32MiB.", default="1536KiB"
        ),
        Option(
            key="quota_bytes",
            kind=Kind.BYTES,
            help="Space for keys and values; negative: no limit.",
            default="2GiB",
        ),
        Option(
            key="auto_compaction",
            kind=Kind.HISTORY,
            help="History to keep: 12h, 30m, or 5000 revisions.",
            default="all",
        ),
        Option(
            key="snapshot_count",
            kind=Kind.NUMBER,
            help="Entries between compactions of the log.",
            default="10000",
        ),
        Option(
            key="catch_up_entries",
            kind=Kind.NUMBER,
            help="Entries kept for slow members.",
            default="5000",
        ),
    ),
    "Clients": (
        Option(
            key="grpc_server",
            kind=Kind.TEXT,
            help="What serves clients: our own, or the gRPC library's, which has no HTTP on their port.",
            default="door",
            choices=("door", "grpcio"),
        ),
    ),
    "Logs": (
        Option(
            key="log_level",
            kind=Kind.TEXT,
            help="What is logged, and what is worse.",
            default="info",
            choices=("debug", "info", "warning", "error"),
        ),
        Option(
            key="log_format",
            kind=Kind.TEXT,
            help="How each line is written.",
            default="text",
            choices=("text", "json"),
        ),
        Option(
            key="audit_log",
            kind=Kind.OUTPUT,
            help="Who asked for what, from where, and what came of it: a line of JSON for a call.",
            default="none",
        ),
        Option(
            key="audit_level",
            kind=Kind.TEXT,
            help="Refusals, logins and management; writes too; all.",
            default="writes",
            choices=("auth", "writes", "reads"),
        ),
    ),
}

OPTIONS: Mapping[str, Option] = {option.key: option for group in GROUPS.values() for option in group}

FILE_SETTINGS: frozenset[str] = frozenset(OPTIONS) - {"config", "name", "data_dir", "initial_cluster"}
"""Keys of Connect.toml that a server checks itself; they are named like the options."""
