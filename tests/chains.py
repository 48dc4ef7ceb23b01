"""Certificates that a careful authority would not issue: `Issued`, each by the one above it."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

__all__ = ["Issued"]

#: Version 3, then serial number 1 (RFC 5280 section 4.1): how the part that is signed begins.
_VERSION = bytes.fromhex("a003020102")
_SERIAL = bytes.fromhex("020101")
#: ecdsa-with-SHA256 (RFC 5758 section 3.2).
_ALGORITHM = bytes.fromhex("300a06082a8648ce3d040302")


class Issued:
    """
    A certificate and its key, without the identifiers of keys that RFC 5280 wants.

    :param name: its common name.
    :param issuer: who has signed it; itself, if not given.
    :param authority: whether it may sign others.
    :param days: from when until when it is valid, from now on.
    :param names: subject alternative names; if it is no authority ``localhost``.
    :param extension: the names instead as they are to be, in DER.
    :param serial: the bytes of its serial number, whatever they are.
    :param key: that of another certificate, to have the same.
    :ivar pem: the certificate.
    :ivar keyPEM: its key.
    """

    def __init__(
        self,
        name: str,
        issuer: Issued | None = None,
        *,
        authority: bool = False,
        days: tuple[float, float] = (-1, 1),
        names: list[x509.GeneralName] | None = None,
        extension: bytes = b"",
        serial: bytes = b"",
        key: ec.EllipticCurvePrivateKey | None = None,
    ) -> None:
        self.key = key or ec.generate_private_key(ec.SECP256R1())
        self.subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        signer = issuer or self
        now = datetime.now(UTC)
        begins, ends = (now + timedelta(days=each) for each in days)
        builder = (
            x509.CertificateBuilder()
            .subject_name(self.subject)
            .issuer_name(signer.subject)
            .public_key(self.key.public_key())
            .serial_number(1 if serial else x509.random_serial_number())
            .not_valid_before(begins)
            .not_valid_after(ends)
        )
        if authority:
            builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        elif extension:
            kind = x509.SubjectAlternativeName.oid
            builder = builder.add_extension(x509.UnrecognizedExtension(kind, extension), False)
        else:
            alternatives = names or [x509.DNSName("localhost")]
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), False)
        certificate = builder.sign(signer.key, hashes.SHA256())
        der = certificate.public_bytes(serialization.Encoding.DER)
        if serial:
            der = _renumbered(certificate.tbs_certificate_bytes, serial, signer.key)
        self.pem = _pem(der)
        self.keyPEM = self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    def write(self, path: Path, *others: Issued) -> str:
        """Write the key, the certificate and those of ``others`` into one file; its path."""
        path.touch(0o600)
        path.write_bytes(self.keyPEM + self.pem + b"".join(other.pem for other in others))
        return str(path)


def _pem(der: bytes) -> bytes:
    return ssl.DER_cert_to_PEM_cert(der).encode()


def _renumbered(signed: bytes, serial: bytes, key: ec.EllipticCurvePrivateKey) -> bytes:
    """The certificate with another serial number, signed again: no library issues it."""
    rest = signed[signed.index(_VERSION + _SERIAL) + len(_VERSION + _SERIAL) :]
    body = _der(0x30, _VERSION + _der(0x02, serial) + rest)
    signature = key.sign(body, ec.ECDSA(hashes.SHA256()))
    return _der(0x30, body + _ALGORITHM + _der(0x03, b"\0" + signature))


def _der(tag: int, content: bytes) -> bytes:
    """One value (X.690 section 8.1)."""
    length = len(content)
    if length < 128:
        return bytes([tag, length]) + content
    size = (length.bit_length() + 7) // 8
    return bytes([tag, 0x80 | size]) + length.to_bytes(size, "big") + content
