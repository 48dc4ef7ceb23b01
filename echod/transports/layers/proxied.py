"""
The PROXY header on a stream (HAProxy's proxy-protocol.txt): who the client behind a proxy is.

`Proxied` is mixed into a transport, outside of TLS: the header comes before all else.  It
is looked at in the kernel's queue, and only its own bytes are taken out of it: so a header may be
split anywhere, and what follows in the same segment is payload without being kept or
put back.  Until it is whole the connection is `IConnectionTransport.opening`, and has its deadline.

Whose headers are believed is the listener's business; `parseHeader` reads them.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Any, Literal

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IAddress
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST

from echod.config.endpoints import TCPEndpoint, UDPEndpoint
from echod.errors import ConfigurationError, MalformedHeader
from echod.transports.layers.layer import AskedFor, Layer
from echod.transports.socket_stream import TRY_AGAIN, SocketStream
from echod.wire.addresses import describeAddress, parseAddress
from echod.wire.networks import Networks
from echod.wire.proxy_binary import LONGEST
from echod.wire.proxy_header import parseHeader
from echod.wire.proxy_values import ProxyHeader, proxyFacts

__all__ = ["Proxied", "ProxyLayer"]

#: The `echod.connection.states.Reason` of a connection that does not begin with a header.
REASON = "header"


class Proxied(SocketStream):
    """Takes a PROXY header off the front of a stream."""

    opening = True

    # Whether the header is still to come; written by _readHeader and _end.
    _expectsHeader = True
    # How it begins; written by _readHeader.
    _begun = b""

    def getPeer(self) -> IAddress:
        """The client's address, as the header has it."""
        header: ProxyHeader | None = self.proxied
        if header is None or header.source is None:
            return self._peer()
        return _address(header.source)

    def getHost(self) -> IAddress:
        """Where the client connected to, as the header has it."""
        header: ProxyHeader | None = self.proxied
        if header is None or header.destination is None:
            host: IAddress = super().getHost()
            return host
        return _address(header.destination)

    def _peer(self) -> IAddress:
        peer: IAddress = super().getPeer()
        return peer

    @property
    def proxyPeer(self) -> IAddress:  # type: ignore[override]  # it is only read
        """See `IConnectionTransport.proxyPeer`."""
        return self._peer()

    def facts(self) -> dict[str, Any]:
        """See `IConnectionTransport.facts`: the proxy, and what its header tells."""
        facts = super().facts()
        if self.proxied is not None:
            proxy = describeAddress(self.proxyPeer)
            peer = {} if proxy is None else {"peer": proxy}
            facts["proxy"] = {**peer, **proxyFacts(self.proxied)}
        return facts

    def heldBytes(self) -> int:
        """See `IConnectionTransport.heldBytes`: with the part of a header that has come."""
        return super().heldBytes() + len(self._begun)

    def doRead(  # type: ignore[override]  # as SocketStream
        self,
    ) -> ConnectionDone | ConnectionLost | Literal[False] | None:
        """Read the header, then as the transport below."""
        return self._readHeader() if self._expectsHeader else super().doRead()

    def _readHeader(self) -> ConnectionDone | ConnectionLost | None:
        try:
            seen = bytearray(LONGEST)
            count = self.socket.recv_into(seen, LONGEST, socket.MSG_PEEK)
        except OSError as error:
            return None if error.errno in TRY_AGAIN else self._lostBy(error)
        if not count:
            if self._begun:
                self._refuse("it ended in the header")
            return CONNECTION_DONE
        self.heard = True
        data = self._begun + bytes(seen[:count])
        try:
            header, length = parseHeader(data)
        except MalformedHeader as error:
            self._refuse(str(error))
            return None
        if not self._takeOut(length - len(self._begun)):
            return CONNECTION_LOST
        self._begun = data[:length]
        if header is not None:
            self._expectsHeader = False
            self._begun = b""
            self.proxied = header
            self.protocol.identified()
            super()._outerLayersDone()
        return None

    def _refuse(self, why: str) -> None:
        """There is no such header: what follows is nobody's."""
        self.failure = why
        self.protocol.transportFailed(REASON)

    def _end(self) -> None:
        """See `SocketStream`: what still comes is thrown away, and its header with it."""
        self._expectsHeader = False
        super()._end()


@dataclass(frozen=True)
class ProxyLayer(Layer):
    """
    Whose PROXY headers are believed; nobody else may connect.

    :ivar trusted: their networks.  Of a UNIX socket it may be none: everybody sends a header there.
    """

    name = "proxy"
    transport = Proxied
    reasons = (REASON,)
    tellsPeer = True
    # That a header told of somebody is no setting.
    rowName = "proxied"

    trusted: Networks

    @classmethod
    def made(cls, asked: AskedFor) -> ProxyLayer | None:
        """See `Layer.made`: ``proxy = ["10.0.0.0/8"]``, for datagrams too."""
        if asked.settings is None:
            return None
        if not asked.settings and isinstance(asked.endpoint, TCPEndpoint | UDPEndpoint):
            raise ConfigurationError(
                f'{asked.place}: trusts nobody; name networks, as "10.0.0.0/8"'
            )
        try:
            return cls(Networks(asked.settings, ()))
        except ConfigurationError as error:
            raise ConfigurationError(f"{asked.place}: {error}") from error

    def terms(self) -> object:
        """See `Layer.terms`."""
        return self.trusted

    def told(self) -> object:
        """See `Layer.told`."""
        return list(self.trusted.allowed)

    def trusts(self, host: str) -> bool:
        """See `Layer.trusts`."""
        return self.trusted.admit(host)


def _address(pair: tuple[str, int]) -> IPv4Address | IPv6Address:
    # A proxy that has addresses of both families writes both as IPv6.
    host = str(parseAddress(pair[0]))
    kind = IPv6Address if ":" in host else IPv4Address
    return kind("TCP", host, pair[1])
