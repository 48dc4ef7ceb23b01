"""TLS on connections that a listener accepts, and what a listener says of it: `TLSLayer`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from echod.config.conversion import convert
from echod.config.endpoints import UDPEndpoint
from echod.config.tls_settings import TLSSettings
from echod.errors import ConfigurationError
from echod.interfaces import IConnectionTransport
from echod.tls.context import ServerTLS
from echod.tls.facts import CertificateExpiry
from echod.transports.layers.layer import AskedFor, Layer
from echod.transports.layers.secured import Secured
from echod.transports.layers.secured_output import REASON
from echod.transports.ports import Accepting

__all__ = ["SecuredServer", "TLSLayer"]

#: Facts that are OpenSSL's words or ours, and need no quotes in the log.
_PLAIN = ("version", "cipher", "alpn")


class SecuredServer(Secured):
    """One accepted connection, whose port has a `TLSLayer`."""

    server: Accepting

    @property
    def security(self) -> ServerTLS:
        """The port's, as of now."""
        layer = self.server.layers[TLSLayer.name]
        assert isinstance(layer, TLSLayer)
        return layer.security


@dataclass(frozen=True)
class TLSLayer(Layer):
    """
    TLS, for whoever connects.

    :ivar security: certificates, keys and settings.
    """

    name = "tls"
    transport = SecuredServer
    reasons = (REASON,)

    security: ServerTLS

    @classmethod
    def made(cls, asked: AskedFor) -> TLSLayer | None:
        """
        See `Layer.made`: a ``tls`` table, or an endpoint of the kind ``tls:``; all files are read.

        :raises ConfigurationError: as `ServerTLS`, and for datagrams.
        """
        words = getattr(asked.endpoint, "tls", None)
        if words is None and asked.settings is None:
            return None
        if isinstance(asked.endpoint, UDPEndpoint):
            raise ConfigurationError(
                f"{asked.place}: {asked.written} is for datagrams; TLS is for streams"
            )
        table = dict(asked.settings or {})
        for key, value in (words or {}).items():
            if key in table:
                raise ConfigurationError(
                    f"{asked.place}: {key} is in {asked.written} too; say it once"
                )
            table[key] = value
        settings = convert(table, TLSSettings, asked.place)
        try:
            return cls(ServerTLS(settings.within(asked.directory)))
        except ConfigurationError as error:
            raise ConfigurationError(f"{asked.place}: {error}") from error

    @property
    def notes(self) -> Sequence[str]:  # type: ignore[override]  # it is only read
        """See `Layer.notes`."""
        return self.security.notes

    @property
    def expiries(self) -> Sequence[CertificateExpiry]:  # type: ignore[override]  # it is only read
        """See `Layer.expiries`."""
        return self.security.expiries

    def terms(self) -> object:
        """See `Layer.terms`: what is in the files does not count."""
        return self.security.settings

    def told(self) -> object:
        """See `Layer.told`: where certificates and keys lie, and not what they are."""
        return msgspec.to_builtins(self.security.settings)

    def line(self, transport: IConnectionTransport) -> str | None:
        """``version=TLSv1.3 cipher=… alpn=echo subject='CN=alice'``: after a handshake."""
        if transport.tls is None:
            return None
        # A certificate's text is whatever its authority let pass.
        return " ".join(
            f"{key}={value if key in _PLAIN else repr(value)}"
            for key, value in msgspec.to_builtins(transport.tls).items()
            if value
        )
