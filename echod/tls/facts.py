"""
What TLS tells of a peer: what a handshake has agreed on, who its certificate names, what failed.

Certificates are read with cryptography, and names are written as RFC 4514 has them.
"""

from __future__ import annotations

import ssl
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct

from echod.errors import TLSFailed
from echod.wire.keys import keyOf

__all__ = ["CertificateExpiry", "TLSFacts", "reasonOf", "silently", "tlsFacts"]


class TLSFacts(Struct, frozen=True, kw_only=True, omit_defaults=True, rename=keyOf):
    """
    What a handshake has agreed on.

    :ivar version: ``TLSv1.3``.
    :ivar cipher: its name as OpenSSL has it.
    :ivar alpn: the protocol that was chosen (RFC 7301), if any.
    :ivar serverName: that the client asked for, if any.
    :ivar subject: of the peer's verified certificate (RFC 4514), if it has shown one.
    :ivar names: its subject alternative names, as ``DNS:alice.example``.
    """

    version: str
    cipher: str
    alpn: str | None = None
    serverName: str | None = None
    subject: str | None = None
    names: tuple[str, ...] = ()


class CertificateExpiry(Struct, frozen=True, kw_only=True):
    """
    Until when one certificate of a listener is good.

    :ivar name: the name that clients ask for to get it (SNI), in small letters; empty for the
        listener's own.
    :ivar path: the file.
    :ivar notAfter: seconds since 1970: when it expires, or the first of those that link it to its
        authority.
    :ivar fingerprint: SHA-256 of the certificate, in hexadecimal: another one has another.
    """

    name: str
    path: str
    notAfter: float
    fingerprint: str

    @property
    def until(self) -> str:
        """``notAfter`` as text (RFC 3339)."""
        return f"{datetime.fromtimestamp(self.notAfter, UTC):%Y-%m-%dT%H:%M:%SZ}"


@contextmanager
def silently() -> Iterator[None]:
    """
    Read certificates without a library's warnings, and without their being errors (``-W error``).

    cryptography warns of what it would not put into a certificate itself, such as serial number 0.
    It is for echod to say what is accepted.  Python has one list of filters for all threads, so a
    thread that changes them meanwhile may find its change undone.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def reasonOf(error: Exception) -> str:
    """What an error of TLS says, in OpenSSL's words if it has some."""
    return getattr(error, "verify_message", "") or getattr(error, "reason", "") or str(error)


def tlsFacts(tls: ssl.SSLObject) -> TLSFacts:
    """
    What ``tls``, which has just shaken hands, has agreed on.

    :raises TLSFailed: the peer's certificate was verified, and is not fit to be read.
    """
    cipher = tls.cipher()
    subject, names = _whoIs(tls)
    return TLSFacts(
        version=tls.version() or "none",
        cipher=cipher[0] if cipher else "none",
        alpn=tls.selected_alpn_protocol(),
        serverName=getattr(tls, "serverName", None),
        subject=subject,
        names=names,
    )


def _whoIs(tls: ssl.SSLObject) -> tuple[str | None, tuple[str, ...]]:
    """Subject and alternative names of the peer's certificate; none if it was not verified."""
    der = tls.getpeercert(binary_form=True)
    if der is None:
        return None, ()
    # A listener's certificate was read with it: nothing is loaded amid a handshake.
    from cryptography import x509

    try:
        with silently():
            # Empty for one that was not verified.  Any: typeshed knows less of it than is in it.
            verified: Any = tls.getpeercert()
            if not verified:
                return None, ()
            subject = x509.load_der_x509_certificate(der).subject.rfc4514_string()
    except Exception as error:
        # Text that is none, or what else an authority let pass, and OpenSSL.
        raise TLSFailed("the certificate cannot be read") from error
    return subject, tuple(f"{kind}:{value}" for kind, value in verified.get("subjectAltName", ()))
