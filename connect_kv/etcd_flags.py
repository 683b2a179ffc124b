"""etcd's own flags, 3.4 to 3.6, and what each becomes here: one table, from which docs/etcd-flags.md is made.

A flag is done (it sets something here), has no meaning here (named once, in a warning, where it asks for
anything but what is the case anyway), or is refused by name because its promise could not be kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum


class FlagFate(Enum):
    """What becomes of a flag."""

    DONE = "done"
    IDLE = "no meaning"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """A flag of etcd's, and what becomes of it here."""

    name: str
    fate: FlagFate
    about: str
    """Done: the option of `serve` that it sets, or how. Else why not, as it is said."""
    quiet: tuple[str, ...] = ()
    """Values that ask for nothing: neither warned of nor refused."""
    switch: bool = False
    """Needs no value."""

    @property
    def variable(self) -> str:
        """The environment variable in which etcd reads the flag."""
        return "ETCD_" + self.name.upper().replace("-", "_")


def _done(*names: tuple[str, str], switch: bool = False) -> list[Flag]:
    return [Flag(name=name, fate=FlagFate.DONE, about=about, switch=switch) for name, about in names]


def _idle(about: str, names: str, *, quiet: tuple[str, ...] = (), switch: bool = False) -> list[Flag]:
    return [
        Flag(name=name, fate=FlagFate.IDLE, about=about, quiet=quiet, switch=switch) for name in names.split()
    ]


def _refused(about: str, names: str, *, quiet: tuple[str, ...] = ("",), switch: bool = False) -> list[Flag]:
    return [
        Flag(name=name, fate=FlagFate.REFUSED, about=about, quiet=quiet, switch=switch)
        for name in names.split()
    ]


_OFF = ("false",)
_ON = ("true",)
_TRACING = "say --tracing, and where to by OTEL_EXPORTER_OTLP_ENDPOINT"

_ALL = [
    *_done(
        ("name", "--name"),
        ("data-dir", "--data-dir; by default NAME.etcd"),
        ("config-file", "a YAML file; flags and environment do not count beside it, as in etcd"),
        ("listen-client-urls", "--listen-client; all of them"),
        ("listen-client-http-urls", "--listen-http"),
        ("listen-peer-urls", "--listen-peer; one address"),
        ("listen-metrics-urls", "--listen-http; one address"),
        ("advertise-client-urls", "--advertise-client; the first"),
        ("initial-advertise-peer-urls", "--advertise-peer; one address"),
        ("initial-cluster", "--initial-cluster"),
        ("initial-cluster-state", "--initial-cluster-state"),
        ("initial-cluster-token", "--initial-cluster-token"),
        ("snapshot-count", "--snapshot-count"),
        ("snapshot-catchup-entries", "--catch-up-entries"),
        ("heartbeat-interval", "--heartbeat-ms, and --tick-ms where it is shorter"),
        ("election-timeout", "--election-ms"),
        ("quota-backend-bytes", "--quota-bytes"),
        ("max-request-bytes", "--max-request-bytes"),
        ("max-learners", "--max-learners"),
        ("auto-compaction-mode", "--auto-compaction"),
        ("auto-compaction-retention", "--auto-compaction; a bare number of a period counts hours"),
        ("cert-file", "--cert-file, where the URLs are https"),
        ("key-file", "--key-file"),
        ("trusted-ca-file", "--trusted-ca-file, with --client-cert-auth"),
        ("client-crl-file", "--client-crl-file"),
        ("client-cert-allowed-hostname", "--client-cert-allowed-hostname"),
        ("self-signed-cert-validity", "--self-signed-cert-validity"),
        ("peer-cert-file", "--peer-cert-file, where the URLs are https"),
        ("peer-key-file", "--peer-key-file"),
        ("peer-trusted-ca-file", "--peer-trusted-ca-file"),
        ("peer-crl-file", "--peer-crl-file"),
        ("peer-cert-allowed-cn", "--peer-cert-allowed-cn"),
        ("peer-cert-allowed-hostname", "--peer-cert-allowed-hostname"),
        ("cipher-suites", "--cipher-suites"),
        ("tls-min-version", "--tls-min-version"),
        ("cors", "--cors"),
        ("host-whitelist", "--host-whitelist"),
        ("auth-token", "--auth-token"),
        ("auth-token-ttl", "--auth-token-ttl"),
        ("bcrypt-cost", "--bcrypt-cost"),
        ("log-level", "--log-level"),
        ("log-format", "--log-format; json by default, console is text"),
        ("corrupt-check-time", "--corruption-check-seconds; 0 leaves the default of 12 hours"),
        ("max-txn-ops", "up to 128, which is what a transaction may have"),
    ),
    *_done(
        ("client-cert-auth", "--client-cert-auth"),
        ("auto-tls", "--auto-tls"),
        ("peer-auto-tls", "--peer-auto-tls"),
        ("debug", "--log-level debug"),
        ("enable-grpc-gateway", "--enable-grpc-gateway"),
        ("version", "prints the version and ends"),
        switch=True,
    ),
    *_idle("all lies in the data directory", "wal-dir", quiet=("",)),
    *_idle("nothing of the kind is kept", "max-snapshots max-wals", quiet=("5",)),
    *_idle(
        "there is no bbolt database",
        "backend-batch-interval backend-batch-limit backend-bbolt-freelist-type "
        "experimental-backend-bbolt-freelist-type bootstrap-defrag-threshold-megabytes",
        quiet=("", "0", "map", "array"),
    ),
    *_idle("members wait for no tick", "initial-election-tick-advance", switch=True, quiet=_ON),
    *_idle("it is always so", "pre-vote strict-reconfig-check", switch=True, quiet=_ON),
    *_idle(
        "members always prove who they are", "peer-client-cert-auth", switch=True, quiet=("true", "false")
    ),
    *_idle("every write is synced", "unsafe-no-fsync", switch=True, quiet=_OFF),
    *_idle(
        "connections are looked after by other rules (docs/api.md)",
        "grpc-keepalive-min-time grpc-keepalive-interval grpc-keepalive-timeout max-concurrent-streams",
        quiet=("5s", "2h", "20s", "4294967295"),
    ),
    *_idle(
        "a port belongs to one process", "socket-reuse-port socket-reuse-address", switch=True, quiet=_OFF
    ),
    *_idle("the gateway calls within the process", "client-cert-file client-key-file", quiet=("",)),
    *_idle("the peer certificate dials as well", "peer-client-cert-file peer-client-key-file", quiet=("",)),
    *_idle("the newest version that both know is spoken", "tls-max-version", quiet=("", "TLS1.3")),
    *_idle("there is no profiling by HTTP", "enable-pprof", switch=True, quiet=_OFF),
    *_idle("all figures are there", "metrics", quiet=("basic", "extensive")),
    *_idle(
        _TRACING,
        "enable-distributed-tracing distributed-tracing-address distributed-tracing-service-name "
        "distributed-tracing-instance-id distributed-tracing-sampling-rate",
        quiet=("false", "localhost:4317", "etcd", "", "0"),
    ),
    *_idle("the log goes to standard error", "log-outputs", quiet=("default", "stderr", "stdout")),
    *_idle("", "logger", quiet=("zap", "capnslog")),
    *_idle(
        "the log goes to standard error, whose reader turns it over",
        "log-package-levels enable-log-rotation log-rotation-config-json",
        quiet=("", "false"),
    ),
    *_idle(
        "data is checked whenever it is read, and members compare it",
        "initial-corrupt-check compact-hash-check-enabled",
        switch=True,
        quiet=_OFF,
    ),
    *_idle(
        "data is checked whenever it is read, and members compare it",
        "compact-hash-check-time",
        quiet=("1m", "1m0s"),
    ),
    *_idle(
        "leases keep the time they had left",
        "enable-lease-checkpoint enable-lease-checkpoint-persist",
        switch=True,
        quiet=("true", "false"),
    ),
    *_idle(
        "a compaction is cleaned up beside all else, at its own pace",
        "compaction-batch-limit compaction-sleep-interval",
        quiet=("1000", "10ms"),
    ),
    *_idle(
        "idle watches are told every ten minutes", "watch-progress-notify-interval", quiet=("10m", "10m0s")
    ),
    *_idle(
        "what takes long is a metric",
        "warning-apply-duration warning-unary-request-duration",
        quiet=("100ms", "300ms"),
    ),
    *_idle("", "txn-mode-write-with-shared-buffer", switch=True, quiet=("true", "false")),
    *_idle(
        "a member serves while it gives space back", "stop-grpc-service-on-defrag", switch=True, quiet=_OFF
    ),
    *_idle("nothing is locked in memory", "memory-mlock", switch=True, quiet=_OFF),
    *_idle("there is one storage version", "downgrade-check-time", quiet=("5s",)),
    *_idle("a member listens at once and says when it serves", "wait-cluster-ready-timeout", quiet=("5s",)),
    *_idle("connections leave from any address", "set-member-localaddr", switch=True, quiet=_OFF),
    *_idle("connections leave from any address", "local-address", quiet=("",)),
    *_idle("there are no such gates", "feature-gates", quiet=("",)),
    *_idle(
        "the second API is not here",
        "v2-deprecation",
        quiet=("", "not-yet", "write-only", "write-only-drop-data"),
    ),
    *_idle(
        "there is no proxy",
        "proxy-failure-wait proxy-refresh-interval proxy-dial-timeout proxy-write-timeout proxy-read-timeout",
        quiet=("5000", "30000", "1000", "0"),
    ),
    *_idle("there is no discovery", "discovery-fallback", quiet=("proxy", "exit", "")),
    *_refused(
        "make a backup of the directory and restore that (connect-kv snapshot save --data-dir)",
        "force-new-cluster",
        switch=True,
        quiet=_OFF,
    ),
    *_refused(
        "members are named by --initial-cluster, there is no discovery",
        "discovery discovery-proxy discovery-srv discovery-srv-name discovery-token "
        "discovery-endpoints discovery-dial-timeout discovery-request-timeout "
        "discovery-keepalive-time discovery-keepalive-timeout discovery-insecure-transport "
        "discovery-insecure-skip-tls-verify discovery-cert discovery-key discovery-cacert "
        "discovery-user discovery-password",
    ),
    *_refused("etcd's second API is not here", "enable-v2", switch=True, quiet=_OFF),
    *_refused("etcd's second API is not here", "enable-v2v3"),
    *_refused("it is a member and no proxy", "proxy", quiet=("off", "")),
    *_refused(
        "a member is who its certificate names", "peer-skip-client-san-verification", switch=True, quiet=_OFF
    ),
]

FLAGS: Mapping[str, Flag] = {flag.name: flag for flag in _ALL}

EXPERIMENTAL = "experimental-"
"""A flag may begin so, as it did before it was settled: ``--experimental-corrupt-check-time``."""

TRANSPORT: Mapping[str, str] = {"client-transport-security": "", "peer-transport-security": "peer-"}
"""Tables of the YAML file, and what their keys begin with as flags."""


def find(name: str) -> Flag | None:
    """The flag of that name, also with the old prefix."""
    return FLAGS.get(name) or FLAGS.get(name.removeprefix(EXPERIMENTAL))
