"""
TLS from files: certificates and keys in, the standard library's ``ssl.SSLContext`` out.

`ServerTLS` is what a listener has for its ``tls`` table, `ClientTLS` what `echod.client` has for a
connection.  Both yield an ``ssl.SSLObject`` over two memory buffers (`ServerTLS.wrap`), because the
bytes go over echod's own transports (`echod.transports.layers.secured`).

TLS 1.2 and 1.3 (RFC 5246, RFC 8446), as RFC 9325 has them: forward secrecy and authenticated
encryption alone, no compression, no renegotiation.  Names of servers are verified by
service-identity (RFC 9525), for addresses too.
"""

from __future__ import annotations

import os
import ssl
import stat
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from ipaddress import ip_address
from typing import Any

from echod.config.tls_settings import TLSSettings
from echod.config.trusted_files import anybodyReads, readTrusted
from echod.errors import ConfigurationError, TLSFailed
from echod.tls.certificate_chains import Chain, checkAuthorities, checkChain, checkPEM
from echod.tls.facts import CertificateExpiry, silently

__all__ = ["ClientTLS", "ServerTLS"]

#: Ciphers of TLS 1.2: RFC 9325 section 4.2. Those of 1.3 are all fine.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
#: RFC 9325 sections 3.3 and 3.4.
OPTIONS = ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
#: How a peer's chain is verified, said here because Python's own choice depends on its version.
#: A chain must end at an authority that has signed itself (no VERIFY_X509_PARTIAL_CHAIN): then a
#: file of authorities means the same to echod as to nginx and OpenSSL's tools.  What a certificate
#: lacks of RFC 5280 is no reason to refuse it (no VERIFY_X509_STRICT): many private authorities
#: leave out the authority key identifier, and who has signed is verified all the same.
VERIFY_FLAGS = ssl.VerifyFlags.VERIFY_X509_TRUSTED_FIRST
_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_REQUIREMENTS = {
    "none": ssl.CERT_NONE,
    "optional": ssl.CERT_OPTIONAL,
    "require": ssl.CERT_REQUIRED,
}


class _NamedObject(ssl.SSLObject):
    """
    Knows what name the client asked for.

    :ivar serverName: the name (SNI, RFC 6066), or ``None``.
    """

    serverName: str | None = None

    def do_handshake(self) -> None:
        """As ever; `_silenceNames` has to know whose it is."""
        _shaking.hands = True
        try:
            super().do_handshake()
        finally:
            _shaking.hands = False


class _Shaking(threading.local):
    """Whether this thread is in a handshake of ours."""

    hands = False


_shaking = _Shaking()


@cache
def _silenceNames() -> None:
    """
    Keep one thing off standard error, once for the process.

    A server name that is not ASCII is refused with an alert.  Python tells ``sys.unraisablehook``
    besides, before any callback of ours, as often as a client likes.  Everything else goes to the
    hook that was there.
    """
    before = sys.unraisablehook

    def hook(unraisable: sys.UnraisableHookArgs) -> None:
        if not (_shaking.hands and isinstance(unraisable.exc_value, UnicodeDecodeError)):
            before(unraisable)

    sys.unraisablehook = hook


class ServerTLS:
    """
    What a listener needs for TLS.

    :param settings: its ``tls`` table.
    :raises ConfigurationError: a file cannot be read, or is not what it should be; a certificate
        is not valid today; a key is not that of its certificate.
    :ivar settings: as given.
    :ivar notes: what an operator might like to know.
    :ivar expiries: until when each of its certificates is good, its own first.
    """

    def __init__(self, settings: TLSSettings) -> None:
        self.settings = settings
        self.notes: list[str] = []
        self.expiries: list[CertificateExpiry] = []
        self._context = self._makeContext("", settings.cert, settings.key)
        others = {
            name.lower(): self._makeContext(name.lower(), pair.cert, pair.key)
            for name, pair in settings.names.items()
        }
        # Also without others: it tells the name.
        _silenceNames()
        self._context.sni_callback = _chooser(others)

    def wrap(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> ssl.SSLObject:
        """The server's side of a connection, its handshake still to come."""
        return self._context.wrap_bio(incoming, outgoing, server_side=True)

    def verify(self, tls: ssl.SSLObject) -> None:
        """Nothing: the handshake has verified what there is."""

    def _makeContext(self, name: str, cert: str, key: str) -> ssl.SSLContext:
        settings = self.settings
        context = _newContext(ssl.PROTOCOL_TLS_SERVER, settings.minimumVersion)
        context.sslobject_class = _NamedObject
        if not settings.tickets:
            context.options |= ssl.OP_NO_TICKET
            context.num_tickets = 0
        context.set_alpn_protocols(settings.alpn)
        chain = _loadPair(context, cert, key)
        self.notes += chain.notes
        self.expiries.append(
            CertificateExpiry(
                name=name, path=cert, notAfter=chain.notAfter, fingerprint=chain.fingerprint
            )
        )
        if anybodyReads(key or cert):
            self.notes.append(f"anybody may read the key {key or cert}: chmod o-r it")
        if settings.clientAuth != "none":
            context.verify_mode = _REQUIREMENTS[settings.clientAuth]
            self.notes += _loadAuthorities(context, settings.ca)
        return context


class ClientTLS:
    """
    How a client does TLS.

    :param ca: a PEM file of the authorities that a server's certificate may come from; the
        system's, if not given.
    :param cert: a PEM file with the client's own certificate, if the server wants one.
    :param key: the key's file, if it is not the same.
    :param alpn: protocols to offer (RFC 7301), best first.
    :param serverName: the name or address that the certificate must be for; the one connected to,
        if not given.
    :param minimumVersion: ``"1.2"`` or ``"1.3"``.
    :raises ConfigurationError: as `ServerTLS`; or ``serverName`` is none.
    """

    def __init__(
        self,
        *,
        ca: str = "",
        cert: str = "",
        key: str = "",
        alpn: tuple[str, ...] = (),
        serverName: str = "",
        minimumVersion: str = "1.2",
    ) -> None:
        # `verify` needs it.  It takes a tenth of a second to load: now, not amid a handshake.
        import service_identity.cryptography  # noqa: F401

        # Of the name that is verified in `verify`.
        self._context = context = _newContext(ssl.PROTOCOL_TLS_CLIENT, minimumVersion)
        context.check_hostname = False
        if alpn:
            context.set_alpn_protocols(alpn)
        if ca:
            _loadAuthorities(context, ca)
        else:
            context.load_default_certs()
        if cert:
            _loadPair(context, cert, key)
        self._serverName = serverName and _asMeant(serverName)

    def to(self, host: str) -> _ClientSide:
        """
        For one connection, to ``host``.

        :raises ConfigurationError: nobody can have that name.
        """
        return _ClientSide(self._context, self._serverName or _asMeant(host))


class _ClientSide:
    """See `ClientTLS.to`; what `echod.transports.layers.secured` asks of it."""

    def __init__(self, context: ssl.SSLContext, name: str) -> None:
        self._context = context
        self._name = name
        self._isAddress = _isAddress(name)

    def wrap(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> ssl.SSLObject:
        """The client's side of a connection."""
        # RFC 6066 section 3: no addresses.
        name = None if self._isAddress else self._name
        return self._context.wrap_bio(incoming, outgoing, server_hostname=name)

    def verify(self, tls: ssl.SSLObject) -> None:
        """
        Check that the certificate is for the name, or the address, that was meant (RFC 9525).

        :raises TLSFailed: it is not.
        """
        from cryptography import x509
        from service_identity.cryptography import (
            verify_certificate_hostname,
            verify_certificate_ip_address,
        )

        der = tls.getpeercert(binary_form=True)
        assert der is not None
        try:
            with silently():
                certificate = x509.load_der_x509_certificate(der)
                if self._isAddress:
                    verify_certificate_ip_address(certificate, self._name)
                else:
                    verify_certificate_hostname(certificate, self._name)
        except Exception as error:
            # VerificationError, or whatever cryptography has for an extension that it cannot read.
            raise TLSFailed(f"the certificate is not for {self._name}") from error


def _asMeant(name: str) -> str:
    """
    A name or an address as it stands in certificates and SNI.

    A name has no dot at its end (RFC 6066 section 3), and letters of ASCII alone (A-labels,
    RFC 5890); an address has no zone, which is this machine's alone (RFC 4007 section 6).

    :raises ConfigurationError: it is neither.
    """
    bare = name.removesuffix(".")
    if _isAddress(bare):
        return bare.partition("%")[0]
    with suppress(UnicodeError):
        if bare:
            return bare.encode("idna").decode()
    raise ConfigurationError(f"{name!r} is no name of a server: write one such as a.example")


def _newContext(protocol: int, minimumVersion: str) -> ssl.SSLContext:
    """What servers and clients have in common, on every version of Python."""
    context = ssl.SSLContext(protocol)
    context.minimum_version = _VERSIONS[minimumVersion]
    context.set_ciphers(CIPHERS)
    context.options |= OPTIONS
    context.verify_flags = VERIFY_FLAGS
    return context


def _isAddress(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _chooser(
    others: Mapping[str, ssl.SSLContext],
) -> Callable[[ssl.SSLObject, str | None, ssl.SSLContext], None]:
    # Any: one of ours has an attribute besides.
    def choose(tls: Any, name: str | None, context: ssl.SSLContext) -> None:
        tls.serverName = name
        if name:
            # Some clients send the dot at the end.
            name = name.lower().removesuffix(".")
            _, _, parent = name.partition(".")
            found = others.get(name) or others.get(f"*.{parent}")
            if found is not None:
                tls.context = found

    return choose


def _loadPair(context: ssl.SSLContext, cert: str, key: str) -> Chain:
    """
    Load a certificate, what links it to its authority, and its key.

    :param key: the key's file; the certificate's, if empty.
    :returns: what the certificate's file holds.
    """
    key = key or cert
    found = _readPEM(cert)
    checkPEM(cert, found)
    checkPEM(key, _readPEM(key))
    with silently():
        chain = checkChain(cert, found)
    # Nobody is there to type it.
    encrypted = ConfigurationError(f"the key in {key} has a passphrase: store it without")

    def passphrase() -> str:
        raise encrypted

    try:
        context.load_cert_chain(cert, key, passphrase)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ConfigurationError(
                f"the key in {key} is not that of the certificate in {cert}"
            ) from error
        raise ConfigurationError(
            f"cannot use the key in {key} with {cert}: {error.reason or 'no PEM key'}"
        ) from error
    except OSError as error:
        # Somebody exchanges them at this moment.
        raise ConfigurationError(f"cannot read {cert} or {key}: {error.strerror}") from error
    return chain


def _readPEM(path: str) -> bytes:
    """
    What is in a file that OpenSSL, and every reload, will read once more.

    :raises ConfigurationError: as `readTrusted`; or it is a pipe or the like, which can be read
        once, and would hold up everybody while it has no writer.
    """
    with suppress(OSError):
        mode = os.stat(path).st_mode  # noqa: PTH116  # as it stands
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise ConfigurationError(
                f"{path} is no file, and cannot be read more than once: name one"
            )
    return readTrusted(path)


def _loadAuthorities(context: ssl.SSLContext, path: str) -> list[str]:
    """
    Load those whose certificates are believed.

    :returns: notes.
    """
    checkPEM(path, _readPEM(path))
    try:
        context.load_verify_locations(path)
    except ssl.SSLError as error:
        raise ConfigurationError(f"{path} holds no certificate of an authority") from error
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from error
    return checkAuthorities(path, context)
