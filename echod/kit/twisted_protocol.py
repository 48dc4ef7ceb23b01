"""
Any Twisted protocol on a listener: `TwistedProtocolConnection`.

A protocol that knows nothing of echod runs unchanged.  Limits, deadlines, counters and drain come
from the `echod.connection.connection.Connection` that it runs on, and backpressure: while the peer
does not read, nothing is read, unless the protocol has registered a producer, which is then paused
itself.

What it gives up without ``IHalfCloseableProtocol``: the peer's FIN is its end.  What it has
written by then, and what a registered producer still has to write, is sent (with Twisted's own
transports it is lost); what it would have written later is not.  Its peer's FIN and
reset alike are its ``connectionLost``.  TLS cannot be started on it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IHalfCloseableDescriptor,
    IHalfCloseableProtocol,
    IProducer,
    IProtocol,
    IProtocolFactory,
    IPushProducer,
    ITransport,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from echod.connection.connection import Connection
from echod.connection.states import Reason, State

__all__ = ["TwistedProtocolConnection", "asConnection", "halfCloses"]


def asConnection(protocol: IProtocol) -> Connection:
    """``protocol`` itself if it is a connection of echod's, else one that hosts it."""
    return protocol if isinstance(protocol, Connection) else TwistedProtocolConnection(protocol)


def halfCloses(factory: IProtocolFactory) -> bool:
    """Whether the factory's protocols are known to tell EOF from close."""
    protocol = getattr(factory, "protocol", None)
    return bool(protocol is not None and IHalfCloseableProtocol.implementedBy(protocol))


class TwistedProtocolConnection(Connection):
    """
    The connection that a foreign protocol runs on.

    :param protocol: not connected yet.
    """

    def __init__(self, protocol: IProtocol) -> None:
        self._protocol = protocol
        self._halfCloses = IHalfCloseableProtocol.providedBy(protocol)
        self._facade = _Transport(self)
        # It has asked for its end, or that of its output; it has been told of the peer's.
        self._finished = False
        self._heardEOF = False
        # Any: a push producer, or one of the pull kind, which cannot be paused.
        self._producer: Any = None
        self._streaming = True
        # A turn to ask a pull producer in is on its way.
        self._pulling = False

    # -- What happens to the protocol ------------------------------------------------------

    def begun(self) -> None:
        """It has a transport."""
        self._protocol.makeConnection(self._facade)

    def received(self, data: bytes) -> None:
        """Bytes for it."""
        self._protocol.dataReceived(data)

    def inputFinished(self) -> None:
        """The peer's FIN."""
        if self._halfCloses:
            self._heardEOF = True
            self._protocol.readConnectionLost()  # type: ignore[attr-defined]  # it provides it

    def writeConnectionLost(self) -> None:
        """Our FIN is with the kernel."""
        if self._halfCloses:
            self.attempt(self._protocol.writeConnectionLost)  # type: ignore[attr-defined]  # it provides it
        super().writeConnectionLost()

    def unanswered(self) -> bool:
        """
        Whether it may still write.

        A pull producer will; a push producer may, as far as its end is asked for: some protocols
        have one for all their life.  And one that has heard of EOF may, until it ends its output.
        """
        if self._producer is not None:
            ending = self._finished or self.state is not State.OPEN
            return ending or not self._streaming
        return self._heardEOF and not self._finished

    def sweep(self, now: float) -> None:
        """As any connection; and a push producer that says nothing more is not waited for."""
        super().sweep(now)
        if (
            self._producer is not None
            and self._streaming
            and not self._heardEOF
            and (self.state is State.FINISHING or self.state is State.LINGERING)
            and not self.transport.unsent()
            and now - self.quietSince() >= self.owner.limits.lingerTimeout
        ):
            producer, self._producer = self._producer, None
            self.attempt(producer.stopProducing)
            self.answered()

    def lost(self, reason: Failure) -> None:
        """The end."""
        producer, self._producer = self._producer, None
        try:
            if producer is not None:
                producer.stopProducing()
        finally:
            self._protocol.connectionLost(reason)

    # -- Its producer ----------------------------------------------------------------------

    def pauseProducing(self) -> None:
        """The peer does not read: pause the producer, or else reading."""
        super().pauseProducing()
        if self._producer is not None and self._streaming:
            # Whoever writes need not be ready for what that raises.
            self.attempt(self._producer.pauseProducing)

    def outputReady(self) -> None:
        """The peer reads again."""
        if self._producer is None:
            return
        if self._streaming:
            self._producer.resumeProducing()
        else:
            self._pull()

    # Any: of either kind, as `_producer`.
    def setProducer(self, producer: Any, streaming: bool) -> None:
        """See ``IConsumer.registerProducer``."""
        if self._producer is not None:
            raise RuntimeError(f"{producer!r} cannot be registered beside {self._producer!r}")
        if not self.canReply():
            producer.stopProducing()
            return
        self._producer, self._streaming = producer, streaming
        # What it reads need not be what it writes.
        self.readAlways(True)
        if not streaming:
            self._pull()
        elif self.outputFull():
            producer.pauseProducing()

    def dropProducer(self) -> None:
        """See ``IConsumer.unregisterProducer``."""
        self._producer = None
        self.readAlways(False)
        if self._finished:
            self.finishOutput()
        else:
            self.answered()

    def _pull(self) -> None:
        """Ask a pull producer for one more, each in a turn of its own, while there is room."""
        if not (self._pulling or self._producer is None or self.outputFull()):
            self._pulling = True
            self.transport.reactor.callLater(0, self._pullMore)
            self._producer.resumeProducing()

    def _pullMore(self) -> None:
        self._pulling = False
        if self.canReply():
            self.attempt(self._pull)

    # -- What the protocol asks for ----------------------------------------------------------

    def finish(self) -> None:
        """It wants to end its output; a producer's is waited for."""
        self._finished = True
        self.finishOutput()

    def close(self) -> None:
        """It wants to end."""
        self._finished = True
        self.end(Reason.QUIT)
        self.answered()


@implementer(ITransport, IConsumer, IPushProducer, IHalfCloseableDescriptor)
class _Transport:
    """What a hosted protocol sees: a transport whose ends and pauses the connection decides."""

    disconnecting = False

    def __init__(self, connection: TwistedProtocolConnection) -> None:
        self._connection = connection

    def write(self, data: bytes) -> None:
        if self._connection.canReply() and data:
            self._connection.reply(data)
            self._connection.progressed()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        self.disconnecting = True
        self._connection.close()

    def abortConnection(self) -> None:
        self._connection.abort(Reason.QUIT)

    def loseWriteConnection(self) -> None:
        self._connection.finish()

    def readConnectionLost(self, reason: Failure) -> None:
        """The connection is told by its own transport."""

    def writeConnectionLost(self, reason: Failure) -> None:
        """The connection is told by its own transport."""

    def getPeer(self) -> IAddress:
        return self._connection.transport.getPeer()

    def getHost(self) -> IAddress:
        return self._connection.transport.getHost()

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        self._connection.setProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        self._connection.dropProducer()

    def pauseProducing(self) -> None:
        self._connection.holdInput()

    def resumeProducing(self) -> None:
        self._connection.releaseInput()

    def stopProducing(self) -> None:
        self.loseConnection()

    def getTcpNoDelay(self) -> bool:
        return bool(self._connection.transport.getTcpNoDelay())  # type: ignore[attr-defined]  # of TCP

    def setTcpNoDelay(self, enabled: bool) -> None:
        self._connection.transport.setTcpNoDelay(enabled)  # type: ignore[attr-defined]  # of TCP

    def getTcpKeepAlive(self) -> bool:
        return bool(self._connection.transport.getTcpKeepAlive())  # type: ignore[attr-defined]  # of TCP

    def setTcpKeepAlive(self, enabled: bool) -> None:
        self._connection.transport.setTcpKeepAlive(enabled)  # type: ignore[attr-defined]  # of TCP
