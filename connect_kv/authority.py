"""A private certificate authority in a folder, and the certificates it signs.

They are such as Go, OpenSSL and the strict checks of Python 3.13 accept: an authority says what its key is
for, every certificate names the key that signed it (RFC 5280, sections 4.2.1.1 to 4.2.1.9 and 4.2.1.12).
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from connect_kv.certificates import BadCertificate, load
from connect_kv.errors import ConfigError

AUTHORITY = "ca"
"""Name of its two files."""
AUTHORITY_DAYS = 3650
DAYS = 365
_EARLIER = timedelta(days=1)
"""What is made is good since a day before: another machine's clock may be behind."""
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """The files of one certificate."""

    cert: Path
    key: Path


def pair(folder: Path, name: str) -> Pair:
    """Where that certificate of a folder is, or would be. Raises ConfigError for what is no name."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{name!r}: expected a name of letters, digits, '_', '.', '@', '-'")
    return Pair(cert=folder / f"{name}.pem", key=folder / f"{name}.key")


def make_authority(folder: Path, *, common_name: str = "connect-kv CA", days: int = AUTHORITY_DAYS) -> Pair:
    """A new authority. Raises ConfigError if there is one, and changes nothing then."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _subject(common_name)
    built = _sign_authority(name, key, days)
    return _write(pair(folder, AUTHORITY), built, key)


def make_node(folder: Path, name: str, hosts: Sequence[str], *, days: int = DAYS) -> Pair:
    """A member's certificate, to serve and to dial with, good for its name and these hosts and addresses."""
    return _make(folder, name, [name, *hosts], days, serves=True)


def make_client(folder: Path, name: str, *, days: int = DAYS) -> Pair:
    """A client's certificate, whose CommonName is the user's name. It cannot serve, and so is no member's."""
    return _make(folder, name, [], days, serves=False)


def make_self_signed(where: Pair, hosts: Sequence[str], *, days: int) -> Pair:
    """One that nobody else signed: encryption without trust."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _subject("connect-kv")
    building = _begin(name, name, key.public_key(), days)
    building = _leaf(building, key.public_key(), hosts, serves=True)
    return _write(where, building.sign(key, hashes.SHA256()), key)


def renew(folder: Path, name: str, *, days: int | None = None) -> Pair:
    """A certificate of that name for the same key and the same names, valid from now on; replaces the file.

    So the pair of files fits together at every moment. The authority too: what it signed stays good.
    """
    found = pair(folder, name)
    old, key = _certificate(found.cert), _key(found.key)
    lifetime = days or max(1, (old.not_valid_after_utc - old.not_valid_before_utc - _EARLIER).days)
    if name == AUTHORITY:
        new = _sign_authority(old.subject, key, lifetime)
    else:
        issuer, issuer_key = _authority(folder)
        building = _begin(old.subject, issuer.subject, key.public_key(), lifetime)
        for extension in old.extensions:
            if not isinstance(extension.value, x509.AuthorityKeyIdentifier):
                building = building.add_extension(extension.value, extension.critical)
        new = building.add_extension(_signed_by(issuer), False).sign(issuer_key, hashes.SHA256())
    beside = found.cert.with_name(f".{found.cert.name}.new")
    with suppress(FileNotFoundError):
        beside.unlink()
    _create(beside, _pem(new), 0o644)
    beside.replace(found.cert)
    return found


def _make(folder: Path, name: str, hosts: Sequence[str], days: int, *, serves: bool) -> Pair:
    if name == AUTHORITY:
        raise ConfigError(f"{AUTHORITY!r} is the authority's name: choose another")
    where = pair(folder, name)
    _must_be_new(where)
    issuer, issuer_key = _authority(folder)
    key = ec.generate_private_key(ec.SECP256R1())
    building = _begin(_subject(name), issuer.subject, key.public_key(), days)
    building = _leaf(building, key.public_key(), hosts, serves=serves)
    building = building.add_extension(_signed_by(issuer), False)
    return _write(where, building.sign(issuer_key, hashes.SHA256()), key)


def _subject(common_name: str) -> x509.Name:
    organization = x509.NameAttribute(NameOID.ORGANIZATION_NAME, "connect-kv")
    return x509.Name([organization, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _begin(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC).replace(microsecond=0)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(now + timedelta(days=days))
    )


def _sign_authority(name: x509.Name, key: Key, days: int) -> x509.Certificate:
    building = _begin(name, name, key.public_key(), days)
    building = building.add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
    building = building.add_extension(_usage(signs=True), True)
    building = building.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
    return building.sign(key, hashes.SHA256())


def _leaf(
    building: x509.CertificateBuilder, key: ec.EllipticCurvePublicKey, hosts: Sequence[str], *, serves: bool
) -> x509.CertificateBuilder:
    uses = [ExtendedKeyUsageOID.CLIENT_AUTH]
    if serves:  # a member dials others, too
        uses.insert(0, ExtendedKeyUsageOID.SERVER_AUTH)
    building = building.add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
    building = building.add_extension(_usage(signs=False), True)
    building = building.add_extension(x509.ExtendedKeyUsage(uses), False)
    building = building.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), False)
    if hosts:
        names = [_alternative(host) for host in dict.fromkeys(hosts)]
        building = building.add_extension(x509.SubjectAlternativeName(names), False)
    return building


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _signed_by(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    try:
        known = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key())  # type: ignore[arg-type]
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(known.value)


def _alternative(host: str) -> x509.GeneralName:
    bare = host.strip("[]")
    try:
        return x509.IPAddress(ip_address(bare))
    except ValueError:
        pass
    try:
        return x509.DNSName(bare)
    except ValueError:
        raise ConfigError(f"{host!r}: expected a host name or an address") from None


def _authority(folder: Path) -> tuple[x509.Certificate, Key]:
    found = pair(folder, AUTHORITY)
    if not found.cert.exists():
        raise ConfigError(f"{found.cert}: there is no authority here yet: connect-kv certs init makes one")
    return _certificate(found.cert), _key(found.key)


def _certificate(path: Path) -> x509.Certificate:
    try:
        return load(path.read_bytes())[0]
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except BadCertificate as error:
        raise ConfigError(f"{path}: {error}") from None


def _key(path: Path) -> Key:
    try:
        found = serialization.load_pem_private_key(path.read_bytes(), None)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, TypeError):
        raise ConfigError(f"{path}: is no private key in PEM without a passphrase") from None
    if not isinstance(found, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise ConfigError(f"{path}: expected an EC or RSA key")
    return found


def _write(where: Pair, built: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Pair:
    """Both files, or neither; what is there already stays."""
    _must_be_new(where)
    form = serialization.PrivateFormat.PKCS8
    secret = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    try:
        where.cert.parent.mkdir(parents=True, exist_ok=True)
        _create(where.key, secret, 0o600)
        try:
            _create(where.cert, _pem(built), 0o644)
        except BaseException:
            where.key.unlink()
            raise
    except FileExistsError as error:
        raise ConfigError(f"{error.filename}: is there already, and is not overwritten") from None
    except OSError as error:
        raise ConfigError(f"{error.filename or where.cert}: cannot be written: {error.strerror}") from None
    return where


def _must_be_new(where: Pair) -> None:
    for path in (where.key, where.cert):
        if path.exists():
            raise ConfigError(f"{path}: is there already, and is not overwritten")


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _create(path: Path, content: bytes, mode: int) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
