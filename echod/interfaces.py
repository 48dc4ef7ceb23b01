"""
The contracts between echod's rooms, and with those who extend it.

`IConnectionTransport` is what `echod.connection.connection` asks of a transport: Twisted's stream
transport with real half-close, and two questions more.  `IProtocolMaker` is what a
protocol is to a listener: the same that Twisted's ``IServiceMaker`` is to ``twistd``.
`ServerContext`, of `echod.server_context`, is what a maker is told of the server around it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IHalfCloseableDescriptor,
    IHalfCloseableProtocol,
    IProtocol,
    IPushProducer,
    IReactorCore,
    IReactorFDSet,
    IReactorFromThreads,
    IReactorTime,
    ITransport,
)
from zope.interface import Attribute, Interface

from echod.server_context import ListenerFacts, ServerContext, ServerInsight

__all__ = [
    "IClock",
    "IConnectionProtocol",
    "IConnectionTransport",
    "IDatagramProtocolMaker",
    "IDescriptorReactor",
    "IProcessReactor",
    "IProtocolMaker",
    "IStreamProtocolMaker",
    "LastFacts",
    "ListenerFacts",
    "ServerContext",
    "ServerInsight",
]


class IDescriptorReactor(IReactorTime, IReactorFDSet):
    """What a transport asks of a reactor: timers, and descriptors to be watched."""


class IProcessReactor(IDescriptorReactor, IReactorCore, IReactorFromThreads):
    """What the daemon asks of its process's reactor: also its start and end, and its signals."""


class IConnectionProtocol(IProtocol, IHalfCloseableProtocol):
    """What a stream transport of echod calls of the protocol that it is the transport of."""

    verbatim: bool = Attribute(
        "Whether the answer is the input, whatever it is.  A protocol that has no such attribute,"
        " as those of others, says no."
    )

    def identified() -> None:
        """A PROXY header has told who the peer is."""

    def handshakeCompleted() -> None:
        """All that comes before the protocol's bytes is done (`IConnectionTransport.opening`)."""

    def transportFailed(reason: str) -> None:
        """
        Nothing can be read or written any more; what waits is still sent.

        :param reason: an `echod.connection.states.Reason`.
        """

    def caughtUp() -> None:
        """All that was `IConnectionTransport.unread` when that was asked has been delivered."""


class IClock(Protocol):
    """
    What tells the time of an echo (`echod.connection.sweep.Sweep`).

    :ivar now: monotonic seconds.
    """

    now: float


class LastFacts(Protocol):
    """What the kernel knew of a connection as it was closed."""

    @property
    def acknowledged(self) -> int:
        """Bytes that the peer had acknowledged."""

    def told(self) -> dict[str, object]:
        """All of it, as plain values for JSON."""


class IConnectionTransport(ITransport, IConsumer, IPushProducer, IHalfCloseableDescriptor):
    """
    A stream whose two directions end separately.

    ``loseWriteConnection`` flushes, then sends FIN, then calls the protocol's
    ``writeConnectionLost``; the peer's FIN arrives as ``readConnectionLost``.  A caller
    unregisters its producer before either end: Twisted keeps a connection with a paused
    producer open for ever.
    """

    reactor: IDescriptorReactor = Attribute("The clock, and who watches the descriptor.")
    credentials: tuple[int, int, int] | None = Attribute(
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
    failure: str | None = Attribute(
        "What went wrong with TLS or a header, in a few words, or ``None``."
    )
    brokenBy: int = Attribute(
        "The error (errno(3)) with which the kernel gave the connection up; 0 if nothing has broken"
        " it, or the kernel did not say what.  ECONNRESET and EPIPE are the peer's doing; any other"
        " is the network's: ETIMEDOUT, EHOSTUNREACH, ENETUNREACH.  EPIPE stands there only if there"
        " was no other.  It stays after ``connectionLost``."
    )
    lastFacts: LastFacts | None = Attribute(
        "What the kernel knew of it as it was closed; ``None`` where nobody keeps a timeline of it."
    )
    echoedBytes: int = Attribute("Bytes that were echoed unseen.")
    echoedAt: float = Attribute("When the last of them were, by the clock of `echoUnseen`; or 0.")
    overhead: int = Attribute("Bytes written besides the protocol's: what TLS adds to them.")
    # Any: their types are of rooms above this one.
    tls: Any = Attribute("A `echod.tls.context.TLSFacts` about the connection, or ``None``.")
    proxied: Any = Attribute("The `echod.wire.proxy_values.ProxyHeader` it came with, or ``None``.")
    proxyPeer: IAddress | None = Attribute(
        "The address of the proxy that it came through, where there must be one, or ``None``."
    )

    def facts() -> dict[str, Any]:
        """
        What the layers have found out, as values for JSON, by the layer's name: ``{"tls": …}``.

        Those that have found out nothing are not there.
        """

    def beginOpening() -> None:
        """To be called once, by a protocol that finds `opening` as it is connected."""

    def unsent() -> int:
        """
        Bytes written that the peer has not acknowledged: in user space and in the kernel.

        A FIN is not counted.  0 once everything has arrived.
        """

    def heldBytes() -> int:
        """
        Bytes that we hold for the peer: of `unsent` those that are not with the kernel's socket,
        and what has been read and not been delivered.  It asks nobody.
        """

    def unread() -> int:
        """
        Bytes from the peer that wait for us to read.

        Where there is TLS they become fewer as they are read; then the protocol's
        ``caughtUp`` is called when the last of them has been delivered.
        """

    def queued() -> int:
        """
        Bytes that wait in the kernel for us to read, of records where there is TLS.

        To ask changes nothing, otherwise than with `unread`.
        """

    def kernelFacts() -> dict[str, dict[str, object]]:
        """
        What the kernel knows of the connection, as plain values: ``tcp_info``, ``syn``, ``queues``.

        docs/insight.md has the keys.  What it does not know is not there; nothing is, once the
        connection is lost.  It costs some microseconds.
        """

    def failed() -> bool:
        """
        Whether the kernel has given the connection up (RST, keepalive, route).

        Needed where nothing is being read or written and no event would tell.  The
        kernel says so once: a caller that is told must end the connection.
        """

    def limitReads(size: int) -> None:
        """Never read more than ``size`` bytes at a time, where else it is 65536."""

    def meterReads(allowed: Callable[[], int] | None) -> None:
        """
        Ask ``allowed()`` before each read how many bytes the protocol may be given, and give it
        no more.  If it says 0 it has stopped reading.  ``None``, after that: ask nobody any more.
        """

    def echoUnseen(
        allowed: bool,
        inPlace: bool = False,
        clock: IClock | None = None,
        told: Callable[[int, float], None] | None = None,
    ) -> None:
        """
        Say whether input may be echoed without being shown.

        What is echoed so is counted (`echoedBytes`), and ``dataReceived`` is not called for it.
        What comes after something that waits to be sent is shown all the same.

        :param inPlace: whether bulk is to stay in the socket's queue until it is sent back; it
            costs more than what a transport does otherwise, but nothing of it is ever ours.
        :param clock: tells when something was echoed (`echoedAt`).
        :param told: called after each read of a transport that tells
            (`echod.transports.telling`), with ``echoedBytes`` and ``echoedAt``.
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
    # Any: its class is the maker's own.
    options: Any = Attribute(
        "A `msgspec.Struct` class that holds the options, or ``None``.  Each field has a default,"
        " and unknown ones are forbidden."
    )
    defaults: Mapping[str, Any] = Attribute(
        "A mapping: `echod.config.limits.Limits` that this protocol prefers."
    )


class IStreamProtocolMaker(IProtocolMaker):
    """
    A protocol for streams: TCP, UNIX, and whatever stands before them.

    Four attributes are false where they are missing.  One whose ``lasts`` is true keeps its
    listener open while the daemon drains, until all others have ended.  Where there is one whose
    ``insight`` is true, the server keeps what `ServerInsight` tells of the past.  One whose
    ``loopback`` is true is served on 127.0.0.1 by an endpoint that names no interface, whatever
    ``--interface`` says.  For one whose ``savesSYN`` is true the kernel keeps the SYN of each
    connection, for `IConnectionTransport.kernelFacts`.
    """

    # Any: a maker writes the types of its own options and its factory, and may leave the context
    # out.
    def makeFactory(settings: Any, context: Any) -> Any:
        """
        Make what builds a protocol for each connection of one listener.

        Called once a listener, before it binds; the factory's ``doStart`` and ``doStop`` follow
        the listener's life, and ``drainBegins``, if it has that, is called as the daemon begins to
        drain.  An exception ends the program, as any error at start does.

        :param settings: an instance of ``options``, or ``None`` without them.
        :param context: a `ServerContext`.  A maker that needs none may leave this parameter out.
        :returns: an ``IProtocolFactory``.  Its protocols are
            `echod.connection.connection.Connection`, or any ``IProtocol``: then see
            `echod.kit.twisted_protocol`.
        """


class IDatagramProtocolMaker(IProtocolMaker):
    """A protocol for datagrams."""

    # Any: as above.
    def makeDatagram(settings: Any, context: Any) -> Any:
        """
        Make what answers the datagrams of one listener.

        :param settings: an instance of ``options``, or ``None`` without them.
        :param context: as in `IStreamProtocolMaker.makeFactory`.
        :returns: a ``twisted.internet.protocol.DatagramProtocol``.  Its ``transport.write``
            answers the datagram that it is being given, with no more bytes than that had;
            anything else is counted and not sent, because it would make a reflector of us.  Its
            attribute ``wants``, if it has one, names what ``transport.datagramFacts()`` shall tell
            of each: ``ttl``, ``tos``, ``received_at`` (`echod.kit.DatagramFacts`).
        """
