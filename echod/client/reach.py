"""
Reaching a host: a socket to the first of its addresses that answers, before one deadline.

A host may have an address that swallows everything, or of a family that this kernel lacks.  So the
attempts overlap: the next one begins when the last one fails, or has been silent for a moment
(RFC 8305 section 5, "Happy Eyeballs").  Whoever answers first is taken.

Whoever is connected to itself (`echod.transports.self_connect`) has reached nobody.

It imports little; see `echod.client.blocking`.
"""

from __future__ import annotations

import errno
import math
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from echod.config.endpoints import Target, UDPEndpoint, UNIXEndpoint
from echod.errors import ConnectFailed, NoAnswer
from echod.transports.self_connect import isItself, resetWhenClosed
from echod.wire.addresses import SocketAddress

__all__ = ["RESETS", "ask", "left", "reach"]

#: Seconds from one attempt to the next, if nobody answers (RFC 8305 section 5).
ATTEMPT_DELAY = 0.25
#: Bytes of a read; no datagram is longer.
READ = 65536
#: What `connect` may report of a connection that was made, and was reset since.
RESETS = frozenset({errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED})

_START = "start echod, or name where it listens"
_SILENT = "is echod stopped, or a firewall on the way?"
_FORBIDDEN = "may this user connect? see the socket's mode and its folders, or the firewall's rules"
_NO_WAY = "see this machine's routes and firewall, or name another address"
_SHORT = "this machine is short of it: see ulimit -n and its memory"
#: What to do about an error of the system's.
_MENDS = {
    errno.ECONNREFUSED: _START,
    errno.ENOENT: _START,
    errno.ENOTDIR: _START,
    errno.ETIMEDOUT: _SILENT,
    errno.EACCES: _FORBIDDEN,
    errno.EPERM: _FORBIDDEN,
    errno.ENETUNREACH: _NO_WAY,
    errno.EHOSTUNREACH: _NO_WAY,
    errno.ENETDOWN: _NO_WAY,
    errno.EHOSTDOWN: _NO_WAY,
    errno.EAFNOSUPPORT: "this kernel lacks that family of addresses: name an address of another",
    errno.EADDRNOTAVAIL: "this machine has no address or no free port to connect from: see"
    " net.ipv6.conf.all.disable_ipv6 and net.ipv4.ip_local_port_range",
    errno.EINVAL: "an address that begins with fe80 needs its interface: fe80::1%eth0",
    errno.EPROTOTYPE: "that socket is of another kind: name one of echod's",
    errno.EMSGSIZE: "send less: --size",
    errno.EMFILE: _SHORT,
    errno.ENFILE: _SHORT,
    errno.ENOBUFS: _SHORT,
    errno.ENOMEM: _SHORT,
}
_UNKNOWN_NAME = "is that how the host is spelt? see DNS and /etc/hosts"
_RESOLVER = "does the name server in /etc/resolv.conf answer?"
#: The same for those of getaddrinfo(3) which are not about the name.
_RESOLVER_MENDS = {
    socket.EAI_AGAIN: _RESOLVER,
    socket.EAI_FAIL: _RESOLVER,
    socket.EAI_MEMORY: _SHORT,
}

_Address = tuple[int, Any]
_Found = TypeVar("_Found")


def reach(target: Target, deadline: float) -> tuple[socket.socket, int]:
    """
    Connect to a target for streams, a host's first address that answers.

    :param deadline: of ``time.monotonic``.
    :returns: the socket, non-blocking; and 0, or one of `RESETS` if it was made and is gone again.
    :raises ConnectFailed: why nobody is there, at each address, and the mend.
    :raises NoAnswer: the time is up; the same.
    """
    if isinstance(target, UNIXEndpoint):
        return _reachUNIX(target, deadline), 0
    addresses = _resolve(target.host, target.port, socket.SOCK_STREAM, deadline)
    return _race(addresses, target.host, deadline, _beginStream, select.POLLOUT, _endStream)


def ask(target: UDPEndpoint, datagram: bytes, deadline: float) -> bytes:
    """
    Send a datagram to each address of a host in turn, until there is an answer.

    :param deadline: of ``time.monotonic``.
    :returns: the first datagram that comes.
    :raises ConnectFailed: why nobody is there, at each address, and the mend.
    :raises NoAnswer: the time is up; the same.
    """

    def begin(asking: socket.socket, address: SocketAddress) -> None:
        asking.connect(address)
        if isItself(asking):
            raise _refused()
        asking.send(datagram)

    addresses = _resolve(target.host, target.port, socket.SOCK_DGRAM, deadline)
    asked, answer = _race(
        addresses, target.host, deadline, begin, select.POLLIN, lambda asked: asked.recv(READ)
    )
    asked.close()
    return answer


def left(deadline: float) -> float:
    """
    Seconds until then.

    :raises TimeoutError: there are none.
    """
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds


# -- Names -----------------------------------------------------------------------------------


def _resolve(host: str, port: int, kind: int, deadline: float) -> list[_Address]:
    """The host's addresses, with their families, the best first (RFC 6724)."""
    found: list[Any] = []
    failed: list[OSError] = []
    # RFC 6761 section 6.3; glibc knows nothing of /etc/hosts with a dot at the end.
    name = "localhost" if host.lower() == "localhost." else host

    def look(flags: int) -> None:
        try:
            found.extend(socket.getaddrinfo(name, port, type=kind, flags=flags))
        except OSError as error:
            failed.append(error)

    look(socket.AI_NUMERICHOST)
    if not found:
        # A name. Nothing interrupts the resolver, but nobody has to wait for it either.
        import threading

        failed.clear()
        resolver = threading.Thread(target=look, args=(0,), daemon=True)
        resolver.start()
        resolver.join(max(0.0, deadline - time.monotonic()))
        if resolver.is_alive():
            raise NoAnswer(f"the host is still being looked up: {_RESOLVER}")
    if failed:
        (why,) = failed
        mend = _RESOLVER_MENDS.get(why.errno or 0, _UNKNOWN_NAME)
        raise ConnectFailed(f"{why.strerror or why}: {mend}") from why
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))


# -- Attempts --------------------------------------------------------------------------------


class _Failures:
    """What came of each attempt."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._hosts: dict[str, list[str]] = {}
        self._errors: list[OSError] = []

    def add(self, address: _Address, error: OSError) -> None:
        self._errors.append(error)
        self._note(error.strerror or str(error), address)

    def _note(self, reason: str, address: _Address) -> None:
        self._hosts.setdefault(reason, []).append(address[1][0])

    def everywhere(self) -> ConnectFailed:
        """All have failed."""
        refused = [error for error in self._errors if error.errno == errno.ECONNREFUSED]
        why = (refused or self._errors)[0]
        mend = _MENDS.get(why.errno or 0, f"see to that, or {_START}")
        failed = ConnectFailed(f"{self._reasons()}: {mend}")
        failed.__cause__ = why
        return failed

    def tooLate(self, silent: Sequence[_Address]) -> NoAnswer:
        """These have said nothing."""
        for address in silent:
            self._note("no answer", address)
        reasons = self._reasons()
        return NoAnswer(_SILENT if reasons == "no answer" else f"{reasons}: {_SILENT}")

    def _reasons(self) -> str:
        """With the addresses, if they are not what was asked for."""
        if [self._host] in self._hosts.values() and len(self._hosts) == 1:
            return next(iter(self._hosts))
        return ", ".join(f"{reason} ({', '.join(hosts)})" for reason, hosts in self._hosts.items())


def _race(
    addresses: Sequence[_Address],
    host: str,
    deadline: float,
    begin: Callable[[socket.socket, Any], None],
    event: int,
    end: Callable[[socket.socket], _Found],
) -> tuple[socket.socket, _Found]:
    """
    Try the addresses in turn, each a moment after the one before or as soon as that has failed.

    :param begin: begins an attempt with a new, non-blocking socket.
    :param event: what poll(2) says of the socket when there is an outcome.
    :param end: returns what the attempt has come to.  Both raise ``OSError`` if it has failed.
    :returns: the first that has an outcome, and what it is.
    """
    kind = socket.SOCK_DGRAM if event == select.POLLIN else socket.SOCK_STREAM
    failures = _Failures(host)
    coming = list(addresses)
    running: dict[int, tuple[socket.socket, _Address]] = {}
    poll = select.poll()
    # Each gets half of the time at least.
    pause = min(ATTEMPT_DELAY, (deadline - time.monotonic()) / 2 / len(coming))
    turn = -math.inf
    try:
        while coming or running:
            now = time.monotonic()
            if now >= deadline:
                raise failures.tooLate([address for _, address in running.values()] + coming)
            if coming and (now >= turn or not running):
                address = coming.pop(0)
                try:
                    attempt = _begin(address, kind, begin)
                except OSError as error:
                    failures.add(address, error)
                    continue
                running[attempt.fileno()] = attempt, address
                poll.register(attempt, event)
                turn = now + pause
            until = min(turn, deadline) if coming else deadline
            for number, _ in poll.poll(math.ceil(max(0.0, until - now) * 1000)):
                attempt, address = running[number]
                try:
                    outcome = end(attempt)
                except BlockingIOError:
                    # Of a datagram whose checksum is wrong poll(2) speaks too early.
                    continue
                except OSError as error:
                    del running[number]
                    failures.add(address, error)
                    poll.unregister(number)
                    attempt.close()
                    turn = -math.inf
                else:
                    del running[number]
                    return attempt, outcome
    finally:
        for attempt, _ in running.values():
            attempt.close()
    raise failures.everywhere()


def _begin(
    address: _Address, kind: int, begin: Callable[[socket.socket, Any], None]
) -> socket.socket:
    family, where = address
    attempt = socket.socket(family, kind)
    try:
        attempt.setblocking(False)
        begin(attempt, where)
    except BaseException:
        attempt.close()
        raise
    return attempt


def _beginStream(connecting: socket.socket, address: SocketAddress) -> None:
    # Otherwise what follows a handshake's last message waits for its acknowledgement.
    connecting.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    why = connecting.connect_ex(address)
    if why not in RESETS | {0, errno.EINPROGRESS}:
        raise OSError(why, os.strerror(why))


def _endStream(connecting: socket.socket) -> int:
    why = connecting.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if why and why not in RESETS:
        raise OSError(why, os.strerror(why))
    try:
        itself = isItself(connecting)
    except OSError:
        # An error that `connect` has told is not told again.
        return errno.ECONNRESET
    if itself:
        # So that the port is free at once for whoever is to listen there.
        resetWhenClosed(connecting)
        raise _refused()
    return why


def _reachUNIX(target: UNIXEndpoint, deadline: float) -> socket.socket:
    """One that is non-blocking is told EAGAIN, not to wait, where the queue is full (unix(7))."""
    connecting = socket.socket(socket.AF_UNIX)
    seconds = max(0.001, deadline - time.monotonic())
    whole = struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
    try:
        connecting.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, whole)
        connecting.connect(target.address)
        connecting.setblocking(False)
    except BlockingIOError as error:
        connecting.close()
        raise NoAnswer(_SILENT) from error
    except OSError as error:
        connecting.close()
        failures = _Failures(target.path)
        failures.add((socket.AF_UNIX, (target.path,)), error)
        raise failures.everywhere() from error
    return connecting


def _refused() -> ConnectionRefusedError:
    return ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
