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


@dataclass(frozen=True, slots=True)
class Option:
    """One thing a node can be told."""

    key: str
    """Field of ServerConfig."""
    kind: Kind
    default: str
    """In words; the value itself is that of the field."""
    help: str
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
        Option("config", Kind.FILE, "none", "A Connect.toml; options and environment win over it."),
        Option("name", Kind.NAME, "default", "This member's name."),
        Option("data_dir", Kind.PATH, "./connect-kv.data", "Where it keeps everything."),
        Option("listen_client", Kind.ADDRESS, "127.0.0.1:2379", "For clients."),
        Option("listen_peer", Kind.ADDRESS, "127.0.0.1:2380", "For other members."),
        Option("listen_http", Kind.ADDRESS, "127.0.0.1:2381",
               "HTTP, which the clients' port answers as well; empty: none."),
        Option("advertise_client", Kind.ADDRESS, "--listen-client", "What clients are told."),
        Option("advertise_peer", Kind.ADDRESS, "--listen-peer", "What members dial."),
    ),
    "The cluster": (
        Option("initial_cluster", Kind.MEMBERS, "only this one", "All members, when it first starts."),
        Option("initial_cluster_state", Kind.TEXT, "new",
               "Found a cluster, or join one that has added this member.", choices=("new", "existing")),
        Option("initial_cluster_token", Kind.TEXT, "none",
               "Tells clusters with the same names and addresses apart."),
        Option("machines", Kind.MACHINES, "none",
               "Host this class, or one of connect_kv.types by its name (jobs=Queue); several times."),
        Option("accept_changed_code", Kind.TEXT, "none",
               "Machines, with commas between them, whose code was changed without effect."),
        Option("max_learners", Kind.NUMBER, "1", "Learners there may be at once."),
    ),
    "TLS for clients": (
        Option("cert_file", Kind.CREDENTIAL, "none",
               "Certificate for clients and HTTP, PEM, its chain after it; with it TLS is on."),
        Option("key_file", Kind.CREDENTIAL, "none", "Its private key, PEM."),
        Option("trusted_ca_file", Kind.CREDENTIAL, "none",
               "Who signs clients' certificates; alone it already demands one of each client."),
        Option("client_cert_auth", Kind.SWITCH, "true with --trusted-ca-file",
               "Demand a certificate of each client; needs --trusted-ca-file."),
        Option("client_crl_file", Kind.CREDENTIAL, "none",
               "Certificates of clients that are revoked, PEM or DER."),
        Option("client_cert_allowed_cn", Kind.TEXT, "any",
               "CommonNames that clients' certificates may have, with commas between them."),
        Option("client_cert_allowed_hostname", Kind.TEXT, "any",
               "Alternative names, one of which clients' certificates must have."),
        Option("http_tls", Kind.TEXT, "open",
               "The HTTP port: TLS as for clients but open to all, with clients' certificates, or neither.",
               choices=("open", "mutual", "off")),
        Option("auto_tls", Kind.SWITCH, "false",
               "Without a certificate: make one that nobody signed, and keep it in the data directory."),
        Option("self_signed_cert_validity", Kind.NUMBER, "1", "Years that such certificates are good."),
    ),
    "HTTP": (
        Option("enable_grpc_gateway", Kind.SWITCH, "true", "The JSON gateway: etcd's API as JSON over HTTP."),
        Option("cors", Kind.TEXT, "*",
               "Origins whose pages may read answers, with commas between them: http://a.example:8000."),
        Option("host_whitelist", Kind.TEXT, "*",
               "Names in Host that plain HTTP answers, with commas between them."),
        Option("dashboard", Kind.TEXT, "read",
               "The page for browsers at /: none, one that changes nothing, or one that may.",
               choices=("off", "read", "write")),
    ),
    "TLS between members": (
        Option("peer_cert_file", Kind.CREDENTIAL, "none",
               "Certificate for other members, PEM; it both serves and dials."),
        Option("peer_key_file", Kind.CREDENTIAL, "none", "Its private key, PEM."),
        Option("peer_trusted_ca_file", Kind.CREDENTIAL, "none", "Who signs members' certificates."),
        Option("peer_crl_file", Kind.CREDENTIAL, "none",
               "Certificates of members that are revoked, PEM or DER."),
        Option("peer_cert_allowed_cn", Kind.TEXT, "those of the members",
               "CommonNames that members' certificates may have, with commas between them."),
        Option("peer_cert_allowed_hostname", Kind.TEXT, "those of the members",
               "Alternative names, one of which members' certificates must have."),
        Option("peer_auto_tls", Kind.SWITCH, "false",
               "Without a certificate: make one that nobody signed; members believe each other unverified."),
    ),
    "TLS for all": (
        Option("tls_min_version", Kind.TEXT, "TLS1.2",
               "The oldest version that is spoken.", choices=("TLS1.2", "TLS1.3")),
        Option("cipher_suites", Kind.TEXT, "all that HTTP/2 allows",
               "Of TLS 1.2, by Go's names, with commas between them."),
    ),
    "Time": (
        Option("heartbeat_ms", Kind.MILLISECONDS, "100ms", "Leader's heartbeat."),
        Option("election_ms", Kind.MILLISECONDS, "1s",
               "Silence before an election; at least five heartbeats."),
        Option("tick_ms", Kind.MILLISECONDS, "50ms", "The step in which both are counted."),
        Option("corruption_check_seconds", Kind.SECONDS, "12h",
               "How often the members' data is compared; 0: never."),
    ),
    "Users": (
        Option("auth_token", Kind.TEXT, "simple",
               "How tokens are made: simple, or jwt,sign-method=RS256,priv-key=FILE,..."),
        Option("auth_token_ttl", Kind.SECONDS, "5m", "How long a simple token lives unused."),
        Option("bcrypt_cost", Kind.NUMBER, "10", "Cost of passwords set from now on, 4 to 31."),
        Option("max_connections", Kind.NUMBER, "16384",
               "Connections of clients; one more is told to go away. With the gRPC library neither counts."),
        Option("max_handshakes", Kind.NUMBER, "1024",
               "Of them, those that have not shown who they are; one more, and the oldest is closed."),
        Option("max_streams_per_user", Kind.NUMBER, "8192",
               "Streams one user may have open on this member; 0: no limit. Root has none, here and below."),
        Option("max_watches_per_user", Kind.NUMBER, "500000",
               "Watches one user may have on this member; 0: no limit."),
        Option("max_sessions_per_user", Kind.NUMBER, "5000", "Sessions one user may have open; 0: no limit."),
    ),
    "Space": (
        Option("max_request_bytes", Kind.BYTES, "1536KiB", "Largest request, up to 32MiB."),
        Option("quota_bytes", Kind.BYTES, "2GiB", "Space for keys and values; negative: no limit."),
        Option("auto_compaction", Kind.HISTORY, "all", "History to keep: 12h, 30m, or 5000 revisions."),
        Option("snapshot_count", Kind.NUMBER, "10000", "Entries between compactions of the log."),
        Option("catch_up_entries", Kind.NUMBER, "5000", "Entries kept for slow members."),
    ),
    "Clients": (
        Option("grpc_server", Kind.TEXT, "door",
               "What serves clients: our own, or the gRPC library's, which has no HTTP on their port.",
               choices=("door", "grpcio")),
    ),
    "Logs": (
        Option("log_level", Kind.TEXT, "info",
               "What is logged, and what is worse.", choices=("debug", "info", "warning", "error")),
        Option("log_format", Kind.TEXT, "text", "How each line is written.", choices=("text", "json")),
        Option("audit_log", Kind.OUTPUT, "none",
               "Who asked for what, from where, and what came of it: a line of JSON for a call."),
        Option("tracing", Kind.SWITCH, "false",
               "Spans of calls whose traceparent says sampled, by OTLP: needs the extra tracing."),
        Option("audit_level", Kind.TEXT, "writes",
               "Refusals, logins and management; writes too; all.", choices=("auth", "writes", "reads")),
    ),
}  # fmt: skip

OPTIONS: Mapping[str, Option] = {option.key: option for group in GROUPS.values() for option in group}

FILE_SETTINGS: frozenset[str] = frozenset(OPTIONS) - {"config", "name", "data_dir", "initial_cluster"}
"""Keys of Connect.toml that a server checks itself; they are named like the options."""
