"""
The contracts between echod's rooms, and with those who extend it.

`IConnectionTransport` is what `echod.connection.connection` asks of a transport: Twisted's stream
transport with real half-close, and two questions more.  `IProtocolMaker` is what a
protocol is to a listener: the same that Twisted's ``IServiceMaker`` is to ``twistd``.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import (
    IConsumer,
    IHalfCloseableDescriptor,
    IPushProducer,
    ITransport,
)
from zope.interface import Attribute, Interface

__all__ = [
    "IConnectionTransport",
    "IDatagramProtocolMaker",
    "IProtocolMaker",
    "IStreamProtocolMaker",
]


class IConnectionTransport(ITransport, IConsumer, IPushProducer, IHalfCloseableDescriptor):
    """
    A stream whose two directions end separately.

    ``loseWriteConnection`` flushes, then sends FIN, then calls the protocol's
    ``writeConnectionLost``; the peer's FIN arrives as ``readConnectionLost``.  A caller
    unregisters its producer before either end: Twisted keeps a connection with a paused
    producer open for ever.
    """

    reactor: Any = Attribute("Has ``callLater`` (``IReactorTime``).")
    credentials: Any = Attribute(
        "Process, user and group of the peer over a UNIX socket (``SO_PEERCRED``), else ``None``."
    )

    opening: bool = Attribute(
        "Whether something comes before the protocol's bytes: a PROXY header, a TLS handshake."
        " Until that is done there are no data; the protocol's ``identified`` is called when a"
        " header has told who the peer is, ``handshakeCompleted`` when all is done, and"
        " ``transportFailed`` with a `Reason` when it failed, then or later."
    )
    heard: bool = Attribute(
        "Whether anything of the header, or then of the handshake, has arrived: as far as `opening`"
        " goes."
    )
    truncated: bool = Attribute(
        "Whether the peer's FIN came where TLS wants a close_notify before it (L2)."
    )
    failure: Any = Attribute("What went wrong with TLS or a header, in a few words, or ``None``.")
    overhead: int = Attribute("Bytes written besides the protocol's: what TLS adds to them.")
    tls: Any = Attribute("A `echod.tls.context.TLSFacts` about the connection, or ``None``.")
    proxied: Any = Attribute("The `echod.wire.proxy_header.ProxyHeader` it came with, or ``None``.")
    proxyPeer: Any = Attribute(
        "The address of the proxy that it came through, where there must be one, or ``None``."
    )

    def beginOpening() -> None:
        """To be called once, by a protocol that finds `opening` as it is connected."""

    def unsent() -> int:
        """
        Bytes written that the peer has not acknowledged: in user space and in the kernel.

        A FIN is not counted.  0 once everything has arrived.
        """

    def unread() -> int:
        """
        Bytes from the peer that wait for us to read.

        Where there is TLS they become fewer as they are read; then the protocol's
        ``caughtUp`` is called when the last of them has been delivered.
        """

    def failed() -> bool:
        """
        Whether the kernel has given the connection up (RST, keepalive, route).

        Needed where nothing is being read or written and no event would tell.  The
        kernel says so once: a caller that is told must end the connection.
        """

    def limitReads(size: int) -> None:
        """Never read more than ``size`` bytes at a time."""

    def meterReads(allowed: Any) -> None:
        """
        Ask ``allowed()`` before each read how many bytes the protocol may be given, and give it
        no more.  If it says 0 it has stopped reading.  ``None``, after that: ask nobody any more.
        """

    def echoUnseen(allowed: bool) -> None:
        """
        Say whether input may be echoed without being shown.

        The protocol's ``echoed`` is then called with the number of bytes that were read and
        written, none of which ``dataReceived`` gets.  What comes after something that waits
        to be sent is shown all the same.
        """

    def closeNow() -> None:
        """
        Close at once, with FIN if that has not been sent; ``connectionLost`` comes meanwhile.

        For when the peer has finished and nothing is `unsent`: what waits would be lost.
        """

    def abortConnection() -> None:
        """Send RST and drop what is buffered; ``connectionLost`` follows in a later turn."""


class IProtocolMaker(Interface):
    """
    One protocol that listeners can serve, with its options.

    Provide `IStreamProtocolMaker`, `IDatagramProtocolMaker`, or both; `echod.kit.makers` has
    classes that do.  A maker is made once, as a module is imported, and must cost nothing:
    whatever it needs it gets when a listener asks for a factory.
    """

    name: str = Attribute("The word for it in endpoints and files: ``[a-z][a-z0-9-]*``.")
    description: str = Attribute("One line for ``--list-protocols``.")
    options: Any = Attribute(
        "A `msgspec.Struct` class that holds the options, or ``None``.  Each field has a default,"
        " and unknown ones are forbidden."
    )
    defaults: Any = Attribute(
        "A mapping: `echod.config.settings.Limits` that this protocol prefers."
    )


class IStreamProtocolMaker(IProtocolMaker):
    """
    A protocol for streams: TCP, UNIX, and whatever stands before them.

    One whose ``lasts`` is true keeps its listener open while the daemon drains, until all others
    have ended; an attribute that is missing is false.
    """

    def makeFactory(settings: Any) -> Any:
        """
        Make what builds a protocol for each connection of one listener.

        Called once a listener, before it binds; the factory's ``doStart`` and ``doStop`` follow
        the listener's life.  An exception ends the program, as any error at start does.

        :param settings: an instance of ``options``, or ``None`` without them.
        :returns: an ``IProtocolFactory``.  Its protocols are
            `echod.connection.connection.Connection`, or any ``IProtocol``: then see
            `echod.kit.twisted_protocol`.
        """


class IDatagramProtocolMaker(IProtocolMaker):
    """A protocol for datagrams."""

    def makeDatagram(settings: Any) -> Any:
        """
        Make what answers the datagrams of one listener.

        :param settings: an instance of ``options``, or ``None`` without them.
        :returns: a ``twisted.internet.protocol.DatagramProtocol``.  Its ``transport.write``
            answers the datagram that it is being given, with no more bytes than that had;
            anything else is counted and not sent, because it would make a reflector of us.
        """
