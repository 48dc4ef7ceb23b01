"""TLS on connections that we make: `TLSConnector`."""

from __future__ import annotations

import ssl
from contextlib import suppress

from echod.tls.record_pump import TLSSide
from echod.transports.layers.secured import Secured
from echod.transports.tcp import Client, Connector

__all__ = ["TLSClient", "TLSConnector"]


class TLSConnector(Connector):
    """
    A TCP connector whose connections do TLS.

    :ivar security: a client's side (`echod.tls.context.ClientTLS.to`).
    """

    security: TLSSide

    def _makeTransport(self) -> TLSClient:
        return TLSClient(self.host, self.port, self.bindAddress, self, self.reactor)


class TLSClient(Secured, Client):
    """One TLS connection that we have made."""

    @property
    def security(self) -> TLSSide:
        """The connector's."""
        security: TLSSide = self.connector.security
        return security

    def beginOpening(self) -> None:
        """See `IConnectionTransport.beginOpening`: a client speaks first."""
        with suppress(ssl.SSLWantReadError):
            self._wrap().do_handshake()
        self._sendOwn()
