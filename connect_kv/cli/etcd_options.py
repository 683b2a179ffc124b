"""From etcd's flags, environment and YAML file to what `serve` is told."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from connect_kv.config import split_address
from connect_kv.errors import ConfigError
from connect_kv.etcd_flags import FLAGS, TRANSPORT, Flag, FlagFate, find

_URL = re.compile(r"(https?|unix|unixs)://(.+?)/?")
_HOURS = re.compile(r"[0-9]+")
_LEVELS = {"warn": "warning", "panic": "error", "fatal": "error", "dpanic": "error"}
_PLAIN: Mapping[str, str] = {
    "name": "name",
    "initial-cluster-state": "initial_cluster_state",
    "initial-cluster-token": "initial_cluster_token",
    "snapshot-count": "snapshot_count",
    "snapshot-catchup-entries": "catch_up_entries",
    "election-timeout": "election_ms",
    "max-request-bytes": "max_request_bytes",
    "max-learners": "max_learners",
    "client-crl-file": "client_crl_file",
    "client-cert-allowed-hostname": "client_cert_allowed_hostname",
    "self-signed-cert-validity": "self_signed_cert_validity",
    "peer-crl-file": "peer_crl_file",
    "peer-cert-allowed-cn": "peer_cert_allowed_cn",
    "peer-cert-allowed-hostname": "peer_cert_allowed_hostname",
    "cipher-suites": "cipher_suites",
    "cors": "cors",
    "host-whitelist": "host_whitelist",
    "auth-token": "auth_token",
    "auth-token-ttl": "auth_token_ttl",
    "bcrypt-cost": "bcrypt_cost",
    "enable-grpc-gateway": "enable_grpc_gateway",
}
"""Flags whose value is that of an option."""
_SWITCHED = {
    **dict.fromkeys(("1", "t", "T", "TRUE", "True"), "true"),
    **dict.fromkeys(("0", "f", "F", "FALSE", "False"), "false"),
}
_TICK_MS = 50
_MOST_OPS = 128
_DEFAULT_QUOTA = str(2 << 30)
_CLIENT_DEFAULT, _PEER_DEFAULT = "http://localhost:2379", "http://localhost:2380"


@dataclass(slots=True)
class Told:
    """What etcd was told, in our words."""

    options: dict[str, str] = field(default_factory=dict)
    """By the fields of ServerConfig."""
    also_listen: tuple[str, ...] = ()
    """Further addresses for clients."""
    warnings: list[str] = field(default_factory=list)


def given(arguments: Sequence[str], environ: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Values by flag, and warnings: the command line wins over the environment, and a file over both.

    Raises ConfigError.
    """
    warnings: list[str] = []
    values = {}
    for flag in FLAGS.values():
        for variable in (flag.variable, f"ETCD_EXPERIMENTAL_{flag.variable.removeprefix('ETCD_')}"):
            if environ.get(variable):
                values[flag.name] = _switched(flag, environ[variable])
    for variable in sorted(environ):
        if variable.startswith("ETCD_") and find(variable[5:].lower().replace("_", "-")) is None:
            warnings.append(f"{variable}: no flag of etcd is called so")
    line = dict(_arguments(arguments))
    values.update(line)
    path = values.pop("config-file", "")
    if path:
        if len(line) > ("config-file" in line):
            warnings.append("--config-file: other flags do not count beside it")
        values = _file(Path(path))
    return values, warnings


def _arguments(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """As Go reads flags: one dash or two, a value after ``=`` or as the next word, none for a switch."""
    words = iter(arguments)
    for word in words:
        if not word.startswith("-") or word in ("-", "--"):
            raise ConfigError(f"{word!r} is no flag of etcd")
        name, equals, value = word.lstrip("-").partition("=")
        flag = find(name)
        if flag is None:
            raise ConfigError(f"--{name}: etcd 3.4 to 3.6 has no such flag")
        if not equals:
            value = "true" if flag.switch else next(words, "")
            if not flag.switch and not value:
                raise ConfigError(f"--{name}: expected a value")
        yield flag.name, _switched(flag, value)


def _switched(flag: Flag, value: str) -> str:
    """A switch may be spelled in as many ways as Go reads one."""
    return _SWITCHED.get(value, value) if flag.switch else value


def _file(path: Path) -> dict[str, str]:
    import yaml

    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(f"--config-file {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config-file {path}: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"--config-file {path}: expected a table of flags")
    values = {}
    for key, value in content.items():
        if key in TRANSPORT and isinstance(value, dict):
            pairs = [(_transport(TRANSPORT[key], str(name)), item) for name, item in value.items()]
        else:
            pairs = [(str(key), value)]
        for name, item in pairs:
            flag = find(name)
            if flag is None:
                raise ConfigError(f"--config-file {path}: {name}: etcd 3.4 to 3.6 has no such flag")
            if item is not None:
                values[flag.name] = _text(item)
    return values


def _transport(prefix: str, name: str) -> str:
    if not prefix:
        return name
    if name.startswith("allowed-"):
        return f"{prefix}cert-{name}"
    return prefix + name.removeprefix("client-") if name == "client-crl-file" else prefix + name


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def translate(values: Mapping[str, str]) -> Told:
    """What it comes to. Raises ConfigError naming the flag whose promise cannot be kept."""
    told = Told()
    for name, value in values.items():
        _judge(FLAGS[name], value, told.warnings)
    options = told.options
    for flag, option in _PLAIN.items():
        if values.get(flag):
            options[option] = values[flag]
    name = values.get("name") or "default"
    options["data_dir"] = values.get("data-dir") or f"{name}.etcd"
    options["name"] = name
    _addresses(values, told, name)
    _numbers(values, options)
    _logs(values, options)
    _compaction(values, options)
    return told


def _judge(flag: Flag, value: str, warnings: list[str]) -> None:
    if flag.fate is FlagFate.DONE or value in flag.quiet:
        return
    if flag.fate is FlagFate.REFUSED:
        raise ConfigError(f"--{flag.name}={value}: {flag.about}")
    warnings.append(f"--{flag.name}: has no meaning here" + (f": {flag.about}" if flag.about else ""))


def _addresses(values: Mapping[str, str], told: Told, name: str) -> None:
    options = told.options
    client = _urls("listen-client-urls", values.get("listen-client-urls") or _CLIENT_DEFAULT)
    if values.get("listen-client-urls") and not values.get("advertise-client-urls"):
        raise ConfigError("--advertise-client-urls is required when --listen-client-urls is set")
    peer = _urls("listen-peer-urls", values.get("listen-peer-urls") or _PEER_DEFAULT)
    advertised = _urls("advertise-client-urls", values.get("advertise-client-urls") or _CLIENT_DEFAULT)
    as_peer = _urls("initial-advertise-peer-urls", values.get("initial-advertise-peer-urls") or _PEER_DEFAULT)
    for flag, urls in (("listen-peer-urls", peer), ("initial-advertise-peer-urls", as_peer)):
        if len(urls) > 1:
            raise ConfigError(f"--{flag}: a member has one address for other members, not {len(urls)}")
    if len(advertised) > 1:
        told.warnings.append("--advertise-client-urls: clients are told the first one")
    options["listen_client"] = client[0][1]
    told.also_listen = tuple(address for _, address in client[1:])
    options["listen_peer"] = peer[0][1]
    options["advertise_client"] = advertised[0][1]
    options["advertise_peer"] = as_peer[0][1]
    cluster = values.get("initial-cluster") or f"{name}={as_peer[0][0]}://{as_peer[0][1]}"
    options["initial_cluster"] = _cluster(cluster)
    _http(values, told)
    _tls(values, told, secure=_scheme("listen-client-urls", client), peers=_scheme("listen-peer-urls", peer))


def _http(values: Mapping[str, str], told: Told) -> None:
    """The clients' port answers HTTP as well, as etcd's: another one is only had where it is asked for."""
    told.options["listen_http"] = ""
    for flag in ("listen-metrics-urls", "listen-client-http-urls"):
        if values.get(flag):
            urls = _urls(flag, values[flag])
            if len(urls) > 1:
                told.warnings.append(f"--{flag}: the first one is listened on")
            told.options["listen_http"] = urls[0][1]
            told.options["http_tls"] = "open" if urls[0][0] == "https" else "off"


def _tls(values: Mapping[str, str], told: Told, *, secure: bool, peers: bool) -> None:
    """As in etcd, what certificates there are counts only where the URLs are https."""
    options = told.options
    auto = values.get("auto-tls") == "true" and not values.get("cert-file")
    peer_auto = values.get("peer-auto-tls") == "true" and not values.get("peer-cert-file")
    if secure:
        if not values.get("cert-file") and not auto:
            raise ConfigError("--listen-client-urls: https needs --cert-file and --key-file, or --auto-tls")
        _copy(values, options, "cert-file", "key-file", "auto-tls", "client-cert-auth", "trusted-ca-file")
        # There the list of authorities alone demands no certificate of clients.
        if values.get("client-cert-auth", "false") != "true":
            options.pop("trusted_ca_file", None)
            options.pop("client_cert_auth", None)
    elif values.get("cert-file") or auto:
        told.warnings.append("--cert-file: the URLs for clients are http, so there is no TLS")
    if peers:
        if not values.get("peer-cert-file") and not peer_auto:
            raise ConfigError(
                "--listen-peer-urls: https needs --peer-cert-file and --peer-key-file, or --peer-auto-tls"
            )
        _copy(values, options, "peer-cert-file", "peer-key-file", "peer-trusted-ca-file", "peer-auto-tls")
    elif values.get("peer-cert-file") or peer_auto:
        told.warnings.append("--peer-cert-file: the URLs for members are http, so there is no TLS")
    if values.get("tls-min-version"):
        options["tls_min_version"] = values["tls-min-version"]


def _copy(values: Mapping[str, str], options: dict[str, str], *flags: str) -> None:
    for flag in flags:
        if values.get(flag):
            options[flag.replace("-", "_")] = values[flag]


def _numbers(values: Mapping[str, str], options: dict[str, str]) -> None:
    quota = values.get("quota-backend-bytes") or "0"
    options["quota_bytes"] = _DEFAULT_QUOTA if quota == "0" else quota
    heartbeat = values.get("heartbeat-interval")
    if heartbeat:
        options["heartbeat_ms"] = heartbeat
        if heartbeat.isdecimal() and 0 < int(heartbeat) < _TICK_MS:
            options["tick_ms"] = heartbeat
    operations = values.get("max-txn-ops") or "0"
    if not operations.isdecimal() or int(operations) > _MOST_OPS:
        raise ConfigError(f"--max-txn-ops={operations}: a transaction has at most {_MOST_OPS} operations")
    check = values.get("corrupt-check-time") or "0s"
    if check.strip("0hms.") != "":
        options["corruption_check_seconds"] = check


def _logs(values: Mapping[str, str], options: dict[str, str]) -> None:
    level = "debug" if values.get("debug") == "true" else values.get("log-level") or "info"
    options["log_level"] = _LEVELS.get(level, level)
    form = values.get("log-format") or "json"
    options["log_format"] = "text" if form == "console" else form


def _compaction(values: Mapping[str, str], options: dict[str, str]) -> None:
    mode = values.get("auto-compaction-mode") or "periodic"
    keep = values.get("auto-compaction-retention") or "0"
    if mode not in ("periodic", "revision"):
        raise ConfigError(f"--auto-compaction-mode={mode}: expected periodic or revision")
    if keep == "0":
        return
    if mode == "revision" and not keep.isdecimal():
        raise ConfigError(f"--auto-compaction-retention={keep}: expected a number of revisions")
    hours = mode == "periodic" and _HOURS.fullmatch(keep)
    options["auto_compaction"] = f"{keep}h" if hours else keep


def _urls(flag: str, text: str) -> list[tuple[str, str]]:
    """(scheme, host:port) of each."""
    found = []
    for url in filter(None, map(str.strip, text.split(","))):
        parts = _URL.fullmatch(url)
        if parts is None:
            raise ConfigError(f"--{flag}: {url!r}: expected http://HOST:PORT")
        scheme, address = parts.groups()
        if scheme.startswith("unix"):
            raise ConfigError(f"--{flag}: {url}: sockets of files are not listened on")
        split_address(address, f"--{flag}")
        found.append((scheme, address))
    return list(dict.fromkeys(found))


def _scheme(flag: str, urls: list[tuple[str, str]]) -> bool:
    """Whether all URLs of a flag are https. Raises ConfigError where some are and some are not."""
    schemes = {scheme for scheme, _ in urls}
    if len(schemes) > 1:
        raise ConfigError(f"--{flag}: some are https and some http: expected one of the two for all")
    return schemes == {"https"}


def _cluster(text: str) -> str:
    """Of ``name=http://host:port,...``, without schemes; a member with two URLs stands there twice."""
    members: dict[str, str] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        name, equals, url = part.partition("=")
        if not equals:
            raise ConfigError(f"--initial-cluster: {part!r}: expected NAME=http://HOST:PORT")
        ((_, address),) = _urls("initial-cluster", url)
        if members.setdefault(name, address) != address:
            raise ConfigError(f"--initial-cluster: {name} has two addresses; a member has one here")
    return ",".join(f"{name}={address}" for name, address in members.items())
