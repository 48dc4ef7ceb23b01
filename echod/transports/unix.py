"""
UNIX stream sockets (unix(7)): ports and connections, with echod's accepting and transport.

A socket's file outlives its process.  One that nobody listens on any more is replaced, one that
somebody does is refused, whenever (`echod.transports.path_lock`), and what is removed at the end
is the file that was made at the start.
Private parts of Twisted known here: ``Port._bindPath``, ``Port._logConnectionLostMsg``,
``Server._sendmsgQueue`` and ``Connector._makeTransport``.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
from contextlib import suppress
from errno import ECONNREFUSED, ENOENT
from pathlib import Path
from typing import Self

from twisted.internet import tcp, unix
from twisted.internet.interfaces import IProtocol, IProtocolFactory
from twisted.logger import Logger
from twisted.python.failure import Failure

from echod.config.endpoints import UNIXEndpoint
from echod.errors import ListenError
from echod.interfaces import IDescriptorReactor
from echod.transports.accepted import Accepted
from echod.transports.path_lock import lockedPath
from echod.transports.ports import Accepting, Listening
from echod.transports.socket_stream import SocketStream, require

__all__ = [
    "UNIXClient",
    "UNIXConnector",
    "UNIXListeningPort",
    "UNIXPort",
    "UNIXServer",
    "credentialsOf",
]

_log = Logger()

require(unix.Port, "_logConnectionLostMsg")
require(unix.Connector, "_makeTransport")

_CREDENTIALS = struct.Struct("iII")  # struct ucred: process, user, group


def credentialsOf(skt: socket.socket) -> tuple[int, int, int]:
    """Process, user and group of who connected (``SO_PEERCRED``, unix(7))."""
    data = skt.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    process, user, group = _CREDENTIALS.unpack(data)
    return process, user, group


class UNIXServer(Accepted, unix.Server):
    """
    One accepted UNIX connection.

    Descriptors that a peer passes are not received: nobody here has a use for them.
    """

    # What is sent at a time counts as unread until all of it is read (unix(7)).  Of a slow reader
    # nothing would be seen for so long that it looked stalled: docs/configuration.md has a rate.
    largestPortion = 36 * 1024

    def __init__(
        self,
        sock: socket.socket,
        protocol: IProtocol,
        client: object,
        server: tcp.Port | None,
        sessionno: int,
        reactor: IDescriptorReactor,
    ) -> None:
        self._sendmsgQueue: list[int] = []
        super().__init__(sock, protocol, (client, None), server, sessionno, reactor)
        self.credentials = credentialsOf(sock)
        # An urgent byte is a byte like others then.  Apart, it would be readable and never be seen
        # by who only looks (MSG_PEEK), turn after turn.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)

    def sendFileDescriptor(self, fileno: int) -> None:
        """See ``IUNIXTransport``: a descriptor travels with bytes that no `write` may overtake."""
        self._end()
        super().sendFileDescriptor(fileno)


class UNIXClient(SocketStream, unix.Client):
    """One UNIX connection that we have made."""


class UNIXConnector(unix.Connector):
    """Twisted's connector, with echod's transport."""

    # tcp.Client, it says; Twisted's own gives a unix.Client, which is none.
    def _makeTransport(self) -> UNIXClient:  # type: ignore[override]
        return UNIXClient(self.address, self, self.reactor, self.checkPID)


class UNIXPort(Accepting, unix.Port):
    """Twisted's port at a path."""

    transport = UNIXServer


class UNIXListeningPort(Listening, UNIXPort):
    """A listening socket at a `UNIXEndpoint`."""

    _endpoint: UNIXEndpoint

    def __init__(
        self,
        endpoint: UNIXEndpoint,
        factory: IProtocolFactory,
        backlog: int,
        reactor: IDescriptorReactor,
    ) -> None:
        super().__init__(endpoint.address, factory, backlog, endpoint.mode, reactor)
        self._endpoint = endpoint
        # Device and number of the file that we made.
        self._file: tuple[int, int] | None = None

    def _open(self) -> socket.socket:
        skt = socket.socket(socket.AF_UNIX)
        try:
            skt.setblocking(False)
            if self._endpoint.abstract:
                skt.bind(self._endpoint.address)
                skt.listen(self.backlog)
            else:
                # Until it listens it looks like the socket of one that has died.
                with lockedPath(self._endpoint.path):
                    self._makeRoom()
                    self._makeFile(skt)
                    skt.listen(self.backlog)
        except BaseException:
            self._removeFile()
            skt.close()
            raise
        return skt

    def _makeFile(self, skt: socket.socket) -> None:
        # From the first moment on nobody may connect who may not later.
        mask = os.umask(0o777 & ~self._endpoint.mode)
        try:
            skt.bind(self._endpoint.address)
        finally:
            os.umask(mask)
        found = Path(self._endpoint.path).lstat()
        self._file = (found.st_dev, found.st_ino)

    def _inherit(self, other: Self) -> None:
        super()._inherit(other)
        # From here on it is this one that removes it.
        self._file = other._file

    def _reopen(self, skt: socket.socket) -> None:
        if self._file is not None:
            try:
                self._setMode()
            except OSError as error:
                # The socket is another matter: whoever may connect is served as before.
                reason = error.strerror
                _log.warn(
                    "{endpoint} keeps its mode: {reason}", endpoint=self._endpoint, reason=reason
                )
        skt.listen(self.backlog)

    def _setMode(self) -> None:
        """Give the file its mode, if it is the one that we made: never what a link leads to."""
        file = os.open(self._endpoint.path, os.O_PATH | os.O_NOFOLLOW)
        try:
            found = os.fstat(file)
            ours = (found.st_dev, found.st_ino) == self._file
            if ours and stat.S_IMODE(found.st_mode) != self._endpoint.mode:
                # The file that is open, whatever its name has come to mean (proc(5)).
                Path(f"/proc/self/fd/{file}").chmod(self._endpoint.mode)
        finally:
            os.close(file)

    def _makeRoom(self) -> None:
        """
        Remove the socket of an instance that has died.

        :raises ListenError: there is a live one, or no socket.
        """
        path = self._endpoint.path
        try:
            found = os.lstat(path)
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(found.st_mode):
            raise ListenError(f"cannot listen on {self._endpoint}: it exists, and is no socket")
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)
            status = probe.connect_ex(self._endpoint.address)
        if status == ECONNREFUSED:
            Path(path).unlink(missing_ok=True)
        elif status != ENOENT:
            raise ListenError(
                f"cannot listen on {self._endpoint}: somebody does already; who: ss -lxp"
            )

    def connectionLost(self, reason: Failure) -> None:
        """See ``IReadDescriptor``: the file goes too, if it is still the one that we made."""
        self._removeFile()
        # Twisted would remove whatever is there.
        self._bindPath = b"\0"
        super().connectionLost(reason)

    def _removeFile(self) -> None:
        if self._file is not None:
            path = Path(self._endpoint.path)
            # Somebody else may have removed it, or its folder: it is gone, as it should be.
            with suppress(OSError):
                found = path.lstat()
                if (found.st_dev, found.st_ino) == self._file:
                    path.unlink()
            self._file = None

    def _logConnectionLostMsg(self) -> None:
        """Say nothing: the listener reports its own end."""
