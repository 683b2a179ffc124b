"""TLS of this process: certificate, key, CA and revocation list from files, read again when these change.

One `Credentials` serves every kind of port: an `ssl.SSLContext` for what asyncio listens on, and gRPC's own
credentials. A handshake gets what the files hold then; connections that stand live on. Files that are broken
are reported, and the last good ones go on serving. Before anything expires, there is a warning and a figure.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from connect_kv.errors import ConfigError
from connect_kv.handshakes import Handshakes

if TYPE_CHECKING:
    import grpc
    from cryptography import x509

__all__ = ["Tls"]

logger = logging.getLogger(__name__)

VERSIONS: Mapping[str, ssl.TLSVersion] = {"TLS1.2": ssl.TLSVersion.TLSv1_2, "TLS1.3": ssl.TLSVersion.TLSv1_3}

CIPHERS: Mapping[str, str] = {
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305": "ECDHE-RSA-CHACHA20-POLY1305",
}
"""Suites of TLS 1.2 that HTTP/2 allows (RFC 9113, appendix A), by the names that Go and etcd use, as OpenSSL
calls them. Those of TLS 1.3 are all good and not chosen."""

WARN_DAYS = (30, 7, 1)
"""So many days before something expires a warning is logged."""
LOOK_SECONDS = 10.0
"""How often the files are looked at when nobody connects."""

Signature = tuple[tuple[int, int, int, int] | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """How a client talks TLS: ``connect(..., tls=Tls(ca="ca.pem"))``. All files are PEM, and read again
    when a connection is made anew after they have changed.
    """

    ca: str | Path | None = None
    """Who signed the servers' certificates; None: whoever this machine trusts."""
    cert: str | Path | None = None
    """The client's own certificate, where servers demand one."""
    key: str | Path | None = None
    """The private key of `cert`."""
    server_name: str = ""
    """The name that the servers' certificates must have, if it is not the address that is dialled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demands:
    """What is asked of the other side, and of the connection."""

    certificate: bool = False
    """Whether who connects must show a certificate that the CA signed."""
    allowed_names: tuple[str, ...] = ()
    """One of these must be its CommonName; empty: any."""
    allowed_hosts: tuple[str, ...] = ()
    """One of these must be among its alternative names; empty: any."""
    unverified: bool = False
    """Whoever is dialled is believed: encryption without trust."""
    min_version: str = "TLS1.2"
    ciphers: tuple[str, ...] = ()
    """For TLS 1.2, by OpenSSL's names; empty: all of `CIPHERS`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What the files held when they were last good."""

    signature: Signature
    certificate: bytes | None
    key: bytes | None = field(repr=False)
    ca: bytes | None
    revoked: frozenset[tuple[str, int]]
    expiries: Mapping[str, float]
    """Seconds since 1970, by file: of the certificate there that expires first."""


class Credentials:
    """One identity and those it trusts. Any thread may use it.

    Raises ConfigError, naming the file and what is wrong with it, unless all of them are good at first.
    """

    def __init__(
        self,
        *,
        cert: str | Path | None = None,
        key: str | Path | None = None,
        ca: str | Path | None = None,
        crl: str | Path | None = None,
        demands: Demands | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`wall` tells seconds since 1970, for what expires."""
        self._files = {"certificate": cert, "key": key, "CA": ca, "revocation list": crl}
        self.demands = demands or Demands()
        self._wall = wall
        self._lock = threading.Lock()
        self._broken: Signature = ()
        self._warned: dict[str, int] = {}
        self.handshakes = Handshakes()
        """Counts and tells the handshakes that fail on ports with these credentials."""
        self.reloads = 0
        """Times that changed files were taken over."""
        self.failures = 0
        """Times that changed files were broken."""
        self._contexts: dict[tuple[bool, tuple[str, ...]], tuple[Material, ssl.SSLContext]] = {}
        self._material = self._read(self._signature())

    @property
    def broken(self) -> bool:
        """Whether the files are now broken, and those before them serve."""
        return bool(self._broken)

    @property
    def latest(self) -> Material:
        """What the files hold, or held when they were last good."""
        with self._lock:
            signature = self._signature()
            if signature == self._material.signature:
                self._broken = ()  # put back as they were
            elif signature != self._broken:
                self._reload(signature)
            return self._material

    def _reload(self, signature: Signature) -> None:
        try:
            material = self._read(signature)
        except ConfigError as error:
            if self._signature() != signature:
                return  # somebody is at work on them: the next one to look reads them
            self.failures += 1
            self._broken = signature
            logger.error(
                "TLS files are broken; those before them go on serving", extra={"reason": str(error)}
            )
            return
        self._material, self._broken = material, ()
        self.reloads += 1
        self._warned.clear()
        logger.info("TLS files were read again", extra={"files": ", ".join(self._given())})

    def _given(self) -> list[str]:
        return [str(path) for path in self._files.values() if path is not None]

    def _signature(self) -> Signature:
        return tuple(_stat(path) for path in self._files.values())

    def _read(self, signature: Signature) -> Material:
        from connect_kv import certificates  # here: only those who use TLS load what reads it

        data = {what: _content(what, path) for what, path in self._files.items()}
        expiries: dict[str, float] = {}
        what = "certificate"
        try:
            issuers: list[x509.Certificate] = []
            for what in ("certificate", "CA"):
                found = data[what]
                if found is None:
                    continue
                read = certificates.load(found) if what == "certificate" else certificates.authorities(found)
                ends = [certificates.expiry(one) for one in read]
                # Of several authorities one may be on its way out; of a chain the first is ours.
                last = max(ends) if what == "CA" else ends[0]
                if last <= self._wall():
                    raise certificates.BadCertificate(f"expired on {certificates.day(last)}")
                begins = min(map(certificates.beginning, read))
                if begins > self._wall():
                    logger.warning(
                        "a certificate is not valid yet: is the clock of this machine right?",
                        extra={"file": str(self._files[what]), "from": certificates.day(begins)},
                    )
                expiries[str(self._files[what])] = min(ends)
                issuers = read if what == "CA" else issuers
            what = "revocation list"
            listed = data[what]
            revoked = frozenset() if listed is None else certificates.revocations(listed, issuers)
        except certificates.BadCertificate as error:
            raise ConfigError(f"{what} {self._files[what]}: {error}") from None
        except ValueError as error:  # something within that cannot be parsed, found when it was asked for
            raise ConfigError(f"{what} {self._files[what]}: cannot be read: {error}") from None
        material = Material(
            signature=signature,
            certificate=data["certificate"],
            key=data["key"],
            ca=data["CA"],
            revoked=revoked,
            expiries=expiries,
        )
        self._context(True, ())  # whether the pair fits is OpenSSL's to say
        return material

    # For ports and channels of asyncio.

    def server_context(self, alpn: Sequence[str]) -> ssl.SSLContext:
        """For a port, for as long as it listens: each handshake goes by the files as they are then."""
        protocols = tuple(alpn)
        outer = self._context(True, protocols)
        self.handshakes.watch(outer)
        self._current(protocols)  # what goes on should a file be broken before anybody has connected

        def at_handshake(
            connection: ssl.SSLSocket | ssl.SSLObject, _: str | None, __: ssl.SSLContext
        ) -> None:
            connection.context = self._current(protocols)

        outer.sni_callback = at_handshake  # called with or without a name
        return outer

    def client_context(self, alpn: Sequence[str]) -> ssl.SSLContext:
        """For one connection to a server, by the files as they are now."""
        return self._current(tuple(alpn), server=False)

    def _current(self, protocols: tuple[str, ...], *, server: bool = True) -> ssl.SSLContext:
        material = self.latest
        with self._lock:
            made = self._contexts.get((server, protocols))
            if made is None or made[0] is not material:
                # The files were good a moment ago; if they are not now, what was made before goes on.
                try:
                    made = material, self._context(server, protocols)
                except ConfigError:
                    if made is None:
                        raise
                self._contexts[server, protocols] = made
            return made[1]

    def _context(self, server: bool, protocols: tuple[str, ...]) -> ssl.SSLContext:
        """A new one from the files. Raises ConfigError."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = VERSIONS[self.demands.min_version]
        context.set_ciphers(":".join(self.demands.ciphers or dict.fromkeys(CIPHERS.values())))
        if protocols:
            context.set_alpn_protocols(list(protocols))
        cert, key, ca, _ = self._files.values()
        if cert is not None and key is not None:
            try:
                context.load_cert_chain(cert, key, password=_no_password)
            except ssl.SSLError as error:
                raise ConfigError(f"key {key}: {_key_problem(error, Path(key))} {cert}") from None
            except (OSError, _Encrypted) as error:
                raise ConfigError(f"key {key}: {getattr(error, 'strerror', None) or error}") from None
        if ca is not None:
            try:
                context.load_verify_locations(ca)
            except (ssl.SSLError, OSError) as error:
                raise ConfigError(f"CA {ca}: {error.strerror or error}") from None
        elif not server and self.demands.unverified:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        elif not server:
            context.load_default_certs()
        if server:
            # No sessions to resume: one shows no certificate, and would outlive the CA and the revocations.
            context.options |= ssl.OP_NO_TICKET
            context.num_tickets = 0
            context.verify_mode = ssl.CERT_REQUIRED if self.demands.certificate else ssl.CERT_NONE
        return context

    # For gRPC's.

    def grpc_server(self) -> grpc.ServerCredentials:
        """For a port of the gRPC library, for as long as it listens."""
        import grpc

        def configuration(material: Material) -> grpc.ServerCertificateConfiguration:
            pair = material.key or b"", material.certificate or b""
            return grpc.ssl_server_certificate_configuration(
                [pair], material.ca if self.demands.certificate else None
            )

        given = self.latest
        last = [given]

        def fetch() -> grpc.ServerCertificateConfiguration | None:
            """Before each handshake; None: as before."""
            material = self.latest
            if material is last[0]:
                return None
            last[0] = material
            return configuration(material)

        return grpc.dynamic_ssl_server_credentials(
            configuration(given),
            fetch,  # type: ignore[arg-type]  # the library's words allow None, its stubs do not
            require_client_authentication=self.demands.certificate,
        )

    def grpc_channel(self) -> grpc.ChannelCredentials:
        """For one channel, which keeps what the files hold now."""
        import grpc

        material = self.latest
        return grpc.ssl_channel_credentials(material.ca, material.key, material.certificate)

    # Who connected.

    def refusal(self, certificate: bytes | None) -> str:
        """Why the holder of a certificate that the CA signed is not let in all the same; empty: it is.

        The certificate in PEM or DER; None: there is none, which a handshake allowed.
        """
        if certificate is None or not (self._files["revocation list"] or self._restricted):
            return ""
        from connect_kv.certificates import BadCertificate, presented

        try:
            shown = presented(certificate)
        except BadCertificate as error:
            return f"the certificate {error}"
        if (shown.issuer, shown.serial) in self._material.revoked:  # each handshake looks at the files
            return f"the certificate {shown.serial:x} of {shown} is revoked"
        if self.demands.allowed_names and shown.common_name not in self.demands.allowed_names:
            return f"the certificate's CommonName {shown.common_name!r} is not allowed"
        if self.demands.allowed_hosts and not any(map(shown.is_for, self.demands.allowed_hosts)):
            names = ", ".join(sorted(shown.names)) or "none"
            return f"no alternative name of the certificate is allowed: {names}"
        return ""

    @property
    def _restricted(self) -> bool:
        return bool(self.demands.allowed_names or self.demands.allowed_hosts)

    # What expires.

    async def watch(self, sleep: Callable[[float], Awaitable[object]] = asyncio.sleep) -> None:
        """Look at the files and the calendar now and then, for ever."""
        while True:
            self.look()
            await sleep(LOOK_SECONDS)

    def look(self) -> None:
        """Take changed files over; warn 30, 7 and 1 days before something expires, and once it has."""
        from connect_kv.certificates import day

        for path, expires in self.latest.expiries.items():
            days = (expires - self._wall()) / 86400
            step = min((limit for limit in (*WARN_DAYS, 0) if days <= limit), default=None)
            if step is None or self._warned.get(path, WARN_DAYS[0] + 1) <= step:
                continue
            self._warned[path] = step
            told = {"file": path, "expires": day(expires)}
            if days <= 0:
                logger.error("a certificate has expired", extra=told)
            else:
                logger.warning("a certificate expires soon", extra=told)


class _Encrypted(ValueError):
    pass


def _no_password() -> str:
    raise _Encrypted("is encrypted; a server starts without anybody who could type the passphrase")


def _key_problem(error: ssl.SSLError, key: Path) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return "does not belong to certificate"
    data = key.read_bytes()
    if b"PRIVATE KEY-----" not in data:
        return "holds no private key in PEM, for certificate"
    return "cannot be used with certificate"


def _stat(path: str | Path | None) -> tuple[int, int, int, int] | None:
    if path is None:
        return None
    try:
        found = os.stat(path)  # follows links: that is how secrets are replaced in containers
    except OSError as error:
        return (-1, error.errno or 0, 0, 0)
    return (found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev)


def _content(what: str, path: str | Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{what} {path}: cannot be read: {error.strerror or error}") from None


def client_credentials(tls: Tls) -> Credentials:
    """Raises ConfigError for files that are missing, broken, or do not belong together."""
    if (tls.cert is None) != (tls.key is None):
        raise ConfigError("a client certificate and its key are given together, or neither")
    return Credentials(cert=tls.cert, key=tls.key, ca=tls.ca)


_NEVER_AGREED = "ECDHE-PSK-CHACHA20-POLY1305"
"""A suite of TLS 1.2 that takes a key both sides were given beforehand. Nobody was."""


def grpc_suites(min_version: str, names: str) -> str:
    """What makes the gRPC library obey; empty: nothing has to.

    It has no setting for the oldest version. Where it may use no suite of TLS 1.2 that two sides could
    agree upon, it speaks 1.3 or not at all.
    """
    return _NEVER_AGREED if min_version == "TLS1.3" else ":".join(openssl_ciphers(names))


def openssl_ciphers(names: str) -> tuple[str, ...]:
    """From names with commas between them, as Go or OpenSSL has them. Raises ConfigError."""
    found = [name.strip() for name in names.split(",") if name.strip()]
    for name in found:
        if name not in CIPHERS and name not in CIPHERS.values():
            raise ConfigError(f'unexpected TLS cipher suite "{name}" (expected some of {", ".join(CIPHERS)})')
    return tuple(dict.fromkeys(CIPHERS.get(name, name) for name in found))
