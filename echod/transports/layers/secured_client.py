"""TLS on connections that we make: `TLSConnector`."""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import Any

from echod.transports.layers.secured import Secured
from echod.transports.tcp import Client, Connector

__all__ = ["TLSClient", "TLSConnector"]


class TLSConnector(Connector):
    """
    A TCP connector whose connections do TLS.

    :ivar security: a client's side (`echod.tls.context.ClientTLS.to`).
    """

    security: Any

    def _makeTransport(self) -> TLSClient:
        return TLSClient(self.host, self.port, self.bindAddress, self, self.reactor)


class TLSClient(Secured, Client):
    """One TLS connection that we have made."""

    @property
    def security(self) -> Any:
        """The connector's."""
        return self.connector.security

    def beginOpening(self) -> None:
        """See `IConnectionTransport.beginOpening`: a client speaks first."""
        with suppress(ssl.SSLWantReadError):
            self._wrap().do_handshake()
        self._sendOwn()
