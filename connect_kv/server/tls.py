"""The credentials of one node, from what it was told. Raises ConfigError for files that cannot be used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from connect_kv import grpc_core
from connect_kv.config import ServerConfig
from connect_kv.credentials import Credentials, Demands, grpc_suites, openssl_ciphers
from connect_kv.errors import ConfigError

CLIENTS, HTTP, MEMBERS = "clients", "http", "members"
"""Ports, as metrics call them."""


def client_credentials(config: ServerConfig) -> dict[str, Credentials]:
    """For `CLIENTS` and `HTTP`; a port that is not there speaks in the clear."""
    if config.cert_file is None:
        return {}
    by_library = config.grpc_server == "grpcio"
    found = {CLIENTS: _clients(config, certificate=config.trusted_ca_file is not None, by_library=by_library)}
    if config.http_tls != "off":
        found[HTTP] = _clients(config, certificate=config.http_tls == "mutual", by_library=False)
    return found


def families(credentials: Mapping[str, Credentials]) -> Iterator[Metric]:
    """For the metrics: when what expires, and how reading changed files went."""
    expiry = GaugeMetricFamily(
        "connect_kv_tls_expiry_timestamp_seconds",
        "When a certificate expires, in seconds since 1970.",
        labels=("use", "file"),
    )
    broken = GaugeMetricFamily(
        "connect_kv_tls_files_broken",
        "Whether files are broken and those before them serve.",
        labels=("use",),
    )
    reloads = CounterMetricFamily(
        "connect_kv_tls_reloads", "Times that changed files were read.", labels=("use", "result")
    )
    refused = CounterMetricFamily(
        "connect_kv_tls_handshakes_refused", "Handshakes that came to nothing.", labels=("use",)
    )
    for use, one in credentials.items():
        refused.add_metric((use,), one.handshakes.refused)
        for path, when in one.latest.expiries.items():
            expiry.add_metric((use, path), when)
        broken.add_metric((use,), one.broken)
        reloads.add_metric((use, "taken"), one.reloads)
        reloads.add_metric((use, "broken"), one.failures)
    if credentials:
        yield from (expiry, broken, reloads, refused)


_FILES = ("certificate", "key", "CA", "revocation list")
"""What complaints of `Credentials` about its files begin with."""


def _clients(config: ServerConfig, *, certificate: bool, by_library: bool) -> Credentials:
    demanded = Demands(
        certificate=certificate,
        allowed_names=_listed(config.client_cert_allowed_cn),
        allowed_hosts=_listed(config.client_cert_allowed_hostname),
        min_version=config.tls_min_version,
        ciphers=openssl_ciphers(config.cipher_suites),
    )
    return _named(
        config,
        ("cert_file", "key_file", "trusted_ca_file", "client_crl_file"),
        demanded,
        by_library=by_library,
    )


def member_credentials(config: ServerConfig) -> Credentials | None:
    """For `MEMBERS`, who both serve and dial; None: they speak in the clear."""
    if config.peer_cert_file is None:
        return None
    trusting = config.peer_auto_tls and config.peer_trusted_ca_file is None
    demanded = Demands(
        certificate=not trusting,
        unverified=trusting,
        allowed_names=_listed(config.peer_cert_allowed_cn),
        allowed_hosts=_listed(config.peer_cert_allowed_hostname),
        min_version=config.tls_min_version,
        ciphers=openssl_ciphers(config.cipher_suites),
    )
    return _named(
        config,
        ("peer_cert_file", "peer_key_file", "peer_trusted_ca_file", "peer_crl_file"),
        demanded,
        by_library=False,
    )


def _named(config: ServerConfig, fields: Sequence[str], demands: Demands, *, by_library: bool) -> Credentials:
    """`fields`: of the configuration, in the order of `_FILES`. Complaints begin with where they came from.

    `by_library`: gRPC's does the handshakes, which takes versions and suites once in a process.
    """
    suites = grpc_suites(config.tls_min_version, config.cipher_suites)
    if by_library and suites and suites != grpc_core.loaded_suites:
        field = "cipher_suites" if config.cipher_suites else "tls_min_version"
        raise ConfigError(
            f"{config.origins.get(field, field)}: gRPC is loaded already: "
            f"set {grpc_core.SUITES}={suites} before this program starts"
        )
    cert, key, ca, crl = (_path(config, field) for field in fields)
    try:
        return Credentials(cert=cert, key=key, ca=ca, crl=crl, demands=demands)
    except ConfigError as error:
        text = str(error)
        named = zip(_FILES, fields, strict=True)
        field = next((field for what, field in named if text.startswith(f"{what} ")), "")
        raise ConfigError(f"{config.origins.get(field, field)}: {text}") from None


def _path(config: ServerConfig, key: str) -> Path | None:
    found: Path | None = getattr(config, key)
    return found


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def listed(text: str) -> frozenset[str]:
    """What is named with commas in between; nothing is everything."""
    return frozenset(_listed(text)) or frozenset({"*"})


def gateway_on_http_port(config: ServerConfig) -> bool:
    """Whether the port for HTTP asks as much of a client as the clients' port does.

    If not, what is refused there must not be had here: probes are answered alone.
    """
    if config.cert_file is None and not config.auto_tls:
        return True
    return config.http_tls == "mutual" or (config.http_tls == "open" and config.trusted_ca_file is None)
