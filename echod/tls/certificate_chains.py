"""
Whether certificates from files are of any use today: chains, and authorities.

A client would refuse what is wrong here, and nobody would be told where the daemon runs.

cryptography is imported where it is used: a daemon without TLS is 9 MiB smaller without it.
"""

from __future__ import annotations

import ssl
import time
from codecs import BOM_UTF8
from datetime import UTC, datetime
from hashlib import sha256
from math import nan
from typing import TYPE_CHECKING, Any, NamedTuple

from echod.config.trusted_files import checkEncoding
from echod.errors import ConfigurationError

if TYPE_CHECKING:
    from cryptography import x509

__all__ = ["Chain", "checkAuthorities", "checkChain", "checkPEM"]


class Chain(NamedTuple):
    """
    What a file of certificates holds, as far as clients verify it.

    :ivar notes: what an operator might like to know.
    :ivar notAfter: when the first of them expires that a client needs, in seconds since 1970; the
        root counts only where it is the certificate itself, because clients use their own.
    :ivar fingerprint: SHA-256 of the certificate, in hexadecimal.
    """

    notes: list[str]
    notAfter: float
    fingerprint: str


def checkPEM(path: str, pem: bytes) -> None:
    """
    Look at how a file is written.

    :raises ConfigurationError: OpenSSL would not see a part of it.  At the beginning it skips a
        byte order mark; files with one each that were put together have one in the middle.
    """
    checkEncoding(path, pem)
    if BOM_UTF8 + b"-----BEGIN" in pem[1:]:
        raise ConfigurationError(
            f"{path} has a byte order mark in the middle, before a -----BEGIN: remove it"
        )


def checkChain(path: str, pem: bytes) -> Chain:
    """
    Look at a certificate and at those that link it to its authority.

    :param path: of the file, for messages.
    :returns: with a note, if some do not certify the one before them (RFC 5246 section 7.4.2, RFC
        8446 section 4.4.2): they are sent as they stand, and some clients refuse such a chain.
        With another, if its root is not valid today: no client needs it.
    :raises ConfigurationError: there is none, or one of the chain is not valid today; or what reads
        certificates is not there, as in a process that has gone to ``--chroot`` without TLS.
    """
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import serialization
    except ImportError as error:
        raise ConfigurationError(
            f"{path} cannot be read here ({error}): restart echod with TLS from the start"
        ) from error
    try:
        certificates = x509.load_pem_x509_certificates(pem)
    except Exception as error:
        raise ConfigurationError(f"{path} holds no certificate: write its path as PEM") from error
    now = datetime.now(UTC)
    chain, others = certificates[:1], certificates[1:]
    while issuers := [other for other in others if _certifies(other, chain[-1])]:
        # An authority that has renewed its own has two; clients take the one that is valid.
        issuer = next((each for each in issuers if _isValid(each, now)), issuers[0])
        others.remove(issuer)
        chain.append(issuer)
    notes = []
    if len(chain) > 1 and chain[-1].subject == chain[-1].issuer and not _isValid(chain[-1], now):
        notes.append(
            f"the root {chain[-1].subject.rfc4514_string()!r} in {path} is not valid today; clients"
            " use their own: leave it out"
        )
        chain, certificates = chain[:-1], [each for each in certificates if each != chain[-1]]
    for certificate in chain:
        what = f"the certificate in {path}"
        if certificate is not chain[0]:
            what = f"the authority {certificate.subject.rfc4514_string()!r} in {path}"
        if now > certificate.not_valid_after_utc:
            raise ConfigurationError(
                f"{what} expired at {certificate.not_valid_after_utc:%F %T} UTC: renew it"
            )
        if now < certificate.not_valid_before_utc:
            raise ConfigurationError(
                f"{what} is valid only from {certificate.not_valid_before_utc:%F %T} UTC:"
                " is the clock right?"
            )
    if chain != certificates:
        note = (
            f"not every certificate in {path} certifies the one before it, so that some clients may"
            " refuse them: put them in order, and leave out the others"
        )
        notes.append(note)
    return Chain(
        notes,
        min(each.not_valid_after_utc for each in _verified(chain)).timestamp(),
        sha256(chain[0].public_bytes(serialization.Encoding.DER)).hexdigest(),
    )


def _verified(chain: list[x509.Certificate]) -> list[x509.Certificate]:
    """Those of a chain that clients verify: without the root that they have themselves."""
    root = chain[-1]
    return chain[:-1] if len(chain) > 1 and root.subject == root.issuer else chain


def checkAuthorities(path: str, context: ssl.SSLContext) -> list[str]:
    """
    Look at the authorities that ``context`` has loaded from a file.

    :param path: of the file, for messages.
    :returns: a note, if some are not valid today: their certificates will be refused.
    :raises ConfigurationError: none is.
    """
    try:
        # OpenSSL reads what cryptography does not, and tells of authorities alone.
        found = context.get_ca_certs()
    except Exception:
        # Text that is none: OpenSSL verifies with it all the same.
        return []
    now = time.time()
    invalid = [
        each
        for each in found
        if not _seconds(each["notBefore"]) <= now <= _seconds(each["notAfter"])
    ]
    if not invalid:
        return []
    if len(invalid) == len(found) == context.cert_store_stats()["x509"]:
        raise ConfigurationError(
            f"no authority in {path} is valid today, the first from {invalid[0]['notBefore']} to"
            f" {invalid[0]['notAfter']}: renew it, or is the clock wrong?"
        )
    note = (
        f"{len(invalid)} of {len(found)} authorities in {path} are not valid today, and who has a"
        f" certificate of theirs is refused; the first is valid from"
        f" {invalid[0]['notBefore']} to {invalid[0]['notAfter']}"
    )
    return [note]


def _certifies(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        if issuer.subject != certificate.issuer:
            return False
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError):
        return False
    except Exception:
        # An algorithm that cryptography does not know: clients may.
        return True
    return True


def _isValid(certificate: x509.Certificate, now: datetime) -> bool:
    return certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc


# Any: what the module ``ssl`` says of a certificate has no types.
def _seconds(date: Any) -> float:
    """A date as OpenSSL prints it; one that is none is before and after nothing."""
    try:
        return ssl.cert_time_to_seconds(date)
    except ValueError:
        return nan
