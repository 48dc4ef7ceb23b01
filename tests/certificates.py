"""An authority for tests, and what it has issued, as files."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from echod.config.tls_settings import TLSSettings
from echod.testing.links import Security
from echod.tls.context import ServerTLS

__all__ = ["Certificates"]

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


class Certificates:
    """
    Files in a folder: certificates with their keys behind them, in one file each.

    :ivar ca: the authority's certificate, alone.
    :ivar server: for ``localhost`` and its addresses.
    :ivar other: for ``other.example`` and ``*.wild.example``.
    :ivar client: for a client: ``alice@example.org``.
    :ivar stranger: for ``localhost``, of another authority.
    :ivar expired: for ``localhost``, until yesterday.
    :ivar early: for ``localhost``, from tomorrow.
    """

    def __init__(self, folder: Path) -> None:
        authority, another = trustme.CA(), trustme.CA()
        self.folder = folder
        self._authority = authority
        self.ca = str(folder / "ca.pem")
        authority.cert_pem.write_to_path(self.ca)
        self.server = self._write("server", authority.issue_cert("localhost", "127.0.0.1", "::1"))
        self.other = self._write("other", authority.issue_cert("other.example", "*.wild.example"))
        self.client = self._write(
            "client", authority.issue_cert("alice@example.org", common_name="alice")
        )
        self.stranger = self._write("stranger", another.issue_cert("localhost", "127.0.0.1"))
        yesterday = datetime.now(UTC) - timedelta(days=1)
        self.expired = self._write(
            "expired", authority.issue_cert("localhost", not_after=yesterday)
        )
        tomorrow = datetime.now(UTC) + timedelta(days=1)
        self.early = self._write("early", authority.issue_cert("localhost", not_before=tomorrow))

    def _write(self, name: str, issued: trustme.LeafCert) -> str:
        path = self.folder / f"{name}.pem"
        path.touch(0o600)
        issued.private_key_and_cert_chain_pem.write_to_path(str(path), append=True)
        return str(path)

    def issue(
        self, name: str, subject: x509.Name, alternatives: list[x509.GeneralName] | bytes
    ) -> str:
        """
        A client's file ``name``, with whatever in it; the authority looks at nothing.

        :param alternatives: names; or the extension as it is to be, in DER.
        """
        authority = x509.load_pem_x509_certificate(self._authority.cert_pem.bytes())
        signing = serialization.load_pem_private_key(self._authority.private_key_pem.bytes(), None)
        assert isinstance(signing, ec.EllipticCurvePrivateKey)
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(authority.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
        )
        if isinstance(alternatives, bytes):
            kind = x509.SubjectAlternativeName.oid
            raw = x509.UnrecognizedExtension(kind, alternatives)
            builder = builder.add_extension(raw, critical=False)
        elif alternatives:
            names = x509.SubjectAlternativeName(alternatives)
            builder = builder.add_extension(names, critical=False)
        certificate = builder.sign(signing, hashes.SHA256())
        path = self.folder / f"{name}.pem"
        path.touch(0o600)
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        return str(path)

    def context(
        self, version: str | None = None, cert: str | None = None, ca: str | None = None
    ) -> ssl.SSLContext:
        """
        A client's side: it trusts ``ca``, if not given the authority; speaks ``version`` alone;
        shows ``cert``.

        What ``ssl.create_default_context`` verifies depends on Python's version.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(ca or self.ca)
        if version is not None:
            context.minimum_version = context.maximum_version = _VERSIONS[version]
        if cert is not None:
            context.load_cert_chain(cert)
        return context

    def security(self, version: str | None = None) -> Security:
        """Both sides, for a link."""
        return ServerTLS(TLSSettings(cert=self.server)), self.context(version)
