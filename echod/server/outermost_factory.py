"""
What a listener's port calls for each connection: `OutermostFactory`.

Admission comes first, then the protocol's own factory.  Whatever that raises costs the connection
alone.
"""

from __future__ import annotations

from twisted.internet.interfaces import IAddress, IProtocol, IProtocolFactory
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure

from echod.connection.owner import Owner
from echod.errors import whatFailed
from echod.insight.fault_log import tellFault
from echod.kit.twisted_protocol import asConnection
from echod.server.counters import Totals

__all__ = ["Accepts", "OutermostFactory"]

_log = Logger()


class Accepts(Owner):
    """The listener, as far as it is asked; it has all of this."""

    @property
    def totals(self) -> Totals:
        """What it counts."""
        raise NotImplementedError

    def admit(self, address: IAddress) -> bool:
        """Whether one more connection may come, from there; a refusal is counted."""
        raise NotImplementedError

    def describe(self) -> str:
        """What it is called."""
        raise NotImplementedError


class OutermostFactory(Factory):
    """What the port calls: admission first, then the protocol's own factory."""

    noisy = False

    def __init__(self, listener: Accepts, inner: IProtocolFactory) -> None:
        self._listener = listener
        self._inner = inner

    def startFactory(self) -> None:
        """Start the protocol's factory too."""
        self._inner.doStart()

    def stopFactory(self) -> None:
        """Stop it, if it has started; what it raises is told."""
        # Its socket may be lost: whoever looks for that once a second shall look.
        self._listener.sweep.wake()
        try:
            self._inner.doStop()
        except BaseException as error:
            # SystemExit too: see echod.insight.fault_log.
            _log.error(
                "{listener} could not stop its protocol: {why}",
                listener=self._listener.describe(),
                why=whatFailed(error),
            )

    def buildProtocol(self, addr: IAddress) -> IProtocol | None:  # type: ignore[override]
        """
        A connection, or ``None`` to have the port close the socket.

        An exception here would leave the socket open.
        """
        try:
            if not self._listener.admit(addr):
                return None
            protocol = self._inner.buildProtocol(addr)
            if protocol is None:
                self._listener.totals.refused.add("protocol", addr)
                return None
            connection = asConnection(protocol)
            connection.owner = self._listener
        except BaseException:
            # SystemExit too: see echod.insight.fault_log.
            tellFault(Failure(), f"{self._listener.describe()} could not accept")
            self._listener.totals.refused.add("error", addr)
            return None
        return connection
