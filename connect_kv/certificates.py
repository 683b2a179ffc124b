"""Reading X.509: whom a certificate names, until when it is good, what a revocation list holds."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from connect_kv.hosts import names_host, plain_host

BEGIN = b"-----BEGIN"


class BadCertificate(ValueError):
    """A file does not hold what it should; says what is wrong, without the file's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Presented:
    """What a certificate says of its holder; that somebody trusted signed it was checked before."""

    common_name: str | None
    names: frozenset[str]
    """Alternative names: host names in lower case, addresses in their shortest form."""
    serial: int
    issuer: str
    is_authority: bool
    may_serve: bool
    """Whether its holder may be a server; a certificate without extended key usage may be anything."""

    @property
    def all_names(self) -> frozenset[str]:
        """Its alternative names and its CommonName."""
        return self.names | ({self.common_name} if self.common_name else frozenset())

    @property
    def kind(self) -> str:
        """What it is good for, in a word: authority, member or client."""
        return "authority" if self.is_authority else "member" if self.may_serve else "client"

    def is_for(self, host: str) -> bool:
        """Whether one of its alternative names is that host name or address."""
        return names_host(self.names, host)

    def __str__(self) -> str:
        return ", ".join(sorted(self.all_names)) or "nobody"


@lru_cache(maxsize=1024)
def presented(certificate: bytes) -> Presented:
    """From PEM or DER; what was read is kept, for it is asked about every call. Raises BadCertificate."""
    return read(load(certificate)[0])


def read(certificate: x509.Certificate) -> Presented:
    """What it says. Raises BadCertificate."""
    names: set[str] = set()
    try:
        extensions = certificate.extensions
        found = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names.update(plain_host(name) for name in found.get_values_for_type(x509.DNSName))
        names.update(str(address) for address in found.get_values_for_type(x509.IPAddress))
    except x509.ExtensionNotFound:
        pass
    except ValueError as error:
        raise BadCertificate(f"its extensions cannot be read: {error}") from error
    common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return Presented(
        common_name=str(common[0].value) if common else None,
        names=frozenset(names),
        serial=certificate.serial_number,
        issuer=certificate.issuer.rfc4514_string(),
        is_authority=_is_authority(certificate),
        may_serve=_may_serve(certificate),
    )


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _may_serve(certificate: x509.Certificate) -> bool:
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return bool({ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE} & set(usage))


def load(data: bytes) -> list[x509.Certificate]:
    """All certificates of a PEM file, or the one in DER. Raises BadCertificate."""
    if not data.strip():
        raise BadCertificate("is empty")
    if BEGIN in data and b"CERTIFICATE-----" not in data:
        raise BadCertificate("holds no certificate" + _instead(data))
    try:
        if BEGIN in data:
            return x509.load_pem_x509_certificates(data)
        return [x509.load_der_x509_certificate(data)]
    except ValueError:
        raise BadCertificate("is no certificate" + _instead(data)) from None


def _instead(data: bytes) -> str:
    if b"PRIVATE KEY-----" in data:
        return " but a private key"
    return " but a revocation list" if b"X509 CRL-----" in data else ""


def authorities(data: bytes) -> list[x509.Certificate]:
    """Those that may sign others; a file of authorities that holds anything else is a mistake."""
    found = load(data)
    for one in found:
        if one.version is x509.Version.v1:
            continue  # from before certificates could say so
        if not _is_authority(one) and one.issuer != one.subject:
            raise BadCertificate(f"holds the certificate of {read(one)}, which is no CA")
    return found


def expiry(certificate: x509.Certificate) -> float:
    """Seconds since 1970."""
    return certificate.not_valid_after_utc.timestamp()


def beginning(certificate: x509.Certificate) -> float:
    """Seconds since 1970."""
    return certificate.not_valid_before_utc.timestamp()


def day(seconds: float) -> str:
    """Such a time for people."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def revocations(data: bytes, issuers: list[x509.Certificate]) -> frozenset[tuple[str, int]]:
    """(issuer, serial) of all that a list in PEM or DER revokes. Raises BadCertificate.

    The list must be signed by one of `issuers`: else whoever can write the file could lock anybody out
    or, worse, an empty list of somebody else would let everybody in.
    """
    try:
        load_list = x509.load_pem_x509_crl if BEGIN in data else x509.load_der_x509_crl
        found = load_list(data)
    except ValueError:
        kind = " but a certificate" if b"BEGIN CERTIFICATE-----" in data else _instead(data)
        raise BadCertificate("is no revocation list" + kind) from None
    if not any(_signed(found, one) for one in issuers):
        raise BadCertificate("is signed by none of the trusted CAs")
    return frozenset((found.issuer.rfc4514_string(), one.serial_number) for one in found)


def _signed(revoked: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    if revoked.issuer != issuer.subject:
        return False
    key = issuer.public_key()
    try:
        return revoked.is_signature_valid(key)  # type: ignore[arg-type]  # TypeError for a key that cannot sign
    except (InvalidSignature, UnsupportedAlgorithm, TypeError):
        return False
