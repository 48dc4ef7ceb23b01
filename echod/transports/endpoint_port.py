"""
A port at an endpoint of echod's, for connections or datagrams: how it starts, and is handed on.

`EndpointPort` is mixed into one of Twisted's ports.  Such a port has started whole, or has left
nothing behind; and another one can go on with its socket.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from twisted.logger import Logger

from echod.config.endpoints import Target
from echod.transports.binding import refusals
from echod.transports.resting import Resting

__all__ = ["EndpointPort"]

_log = Logger()


class EndpointPort(Resting):
    """
    Starts a port whole or not at all, and hands its socket on.

    A class with this in it has ``_endpoint`` and ``close``, and what is to be written below.
    """

    _endpoint: Target
    # Stops listening now.
    close: Callable[[], None]
    # Any: a number in some of Twisted's ports, a bool in others.
    connected: Any

    #: A command that tells who has an address already.
    _holders = ""

    def _open(self) -> socket.socket:
        """
        Make the socket, or find it, and bind it; whatever it raises, it leaves none open.

        :raises OSError: the system refuses it.
        """
        raise NotImplementedError

    def _prepare(self, skt: socket.socket) -> None:
        """
        Give a socket that is about to be served its options.

        :raises OSError: the system refuses them.
        """

    def _reopen(self, skt: socket.socket) -> None:
        """
        Give a socket that was another port's the settings of this one.

        :raises OSError: the system refuses them.
        """

    def _startProtocol(self) -> None:
        """Start what is served; it may raise anything."""
        raise NotImplementedError

    def _stopProtocol(self) -> None:
        """Undo `_startProtocol`; this does not fail."""
        raise NotImplementedError

    # Any: a port of the same kind as this one.
    def _inherit(self, other: Any) -> None:
        """Go on with what another port has counted, and with what belongs to the socket."""
        raise NotImplementedError

    def _hold(self, skt: socket.socket) -> None:
        """Have the socket, and know its address."""
        self.socket = skt
        self.fileno = skt.fileno  # type: ignore[method-assign]  # as Twisted's ports do

    def startListening(self) -> None:
        """
        Bind, now, or leave nothing behind.

        :raises ListenError: in one line that names the address.  Twisted's own method lets
            ``socket()`` and ``listen()`` raise a bare ``OSError``, and leaves the socket open.
        """
        with refusals(self._endpoint, self._holders):
            skt = self._open()
        self._hold(skt)
        self.connected = True
        try:
            self._startProtocol()
            with refusals(self._endpoint):
                self.startReading()
        except BaseException:
            self.giveUp()
            raise

    def giveUp(self) -> None:
        """Stop listening now, where nothing was served yet."""
        self.close()

    def prepareTakeOver(self, other: EndpointPort) -> None:
        """
        Be ready to go on with another port's socket, which the other serves until `takeOver`.

        Whatever may fail of going on is here: it raises what starting the protocol does.
        """
        self._hold(other.socket)
        self._startProtocol()

    def cancelTakeOver(self) -> None:
        """Undo `prepareTakeOver`."""
        self._stopProtocol()

    def takeOver(self, other: EndpointPort) -> None:
        """
        Go on with another port's socket, under the settings of this one, after `prepareTakeOver`.

        Connections stay the other's; who waits loses nothing.  This does not fail: what the system
        refuses is told, and goes on as it was or is tried again.
        """
        other.release()
        self._inherit(other)
        self.connected = True
        try:
            self._reopen(self.socket)
        except OSError as error:
            _log.warn(
                "{port} keeps the settings of before: {reason}",
                port=repr(self),
                reason=error.strerror,
            )
        self.wake()

    def release(self) -> None:
        """Stop, and leave the socket open for another port."""
        self.stopResting()
        # First, so that a poller forgets the descriptor, which another will bear.
        self.connected = False
        self.stopReading()
        self._stopProtocol()
