"""
Where a connection stands, why one ended, and how: `State`, `Reason`, `howEnded`.

`echod.connection.lifecycle` draws the way from state to state, and tells what each is.
"""

from __future__ import annotations

import errno
from enum import Enum

__all__ = ["ENDS", "GONE", "Reason", "State", "endedBy", "howEnded"]


class State(Enum):
    """Where a connection stands; `echod.connection.lifecycle` draws the way."""

    NEW = "new"
    OPENING = "opening"
    OPEN = "open"
    DRAINING = "draining"
    FINISHING = "finishing"
    LINGERING = "lingering"
    CLOSED = "closed"
    ABORTED = "aborted"

    # That of Enum is a function of Python's, three times as slow.
    __hash__ = object.__hash__


#: It is over.
GONE = (State.CLOSED, State.ABORTED)


class Reason(str, Enum):
    """
    Why a connection ended, as counters and log name it.

    The first cause; but what made us lose bytes that we owed (``RESET`` before our own end,
    ``STALLED``, ``ERROR``) takes its place.  docs/operations.md has this list, computed.

    :cvar EOF: The peer finished (FIN).
    :cvar RESET: The peer or the network broke it (RST).
    :cvar QUIT: The protocol had said all it had to say, or was asked to end.
    :cvar TOO_LONG: A message was longer than the configured maximum.
    :cvar MALFORMED: Bytes came that are no message.
    :cvar IDLE: Nothing came or went for ``idle_timeout``.
    :cvar STALLED: Unsent bytes, or answers still to come, stood still for ``stall_timeout``.
    :cvar MAX_AGE: It was older than ``max_age``.
    :cvar MAX_BYTES: It sent as much as it may, ``max_bytes``.
    :cvar FIRST_BYTE: It sent nothing at all for ``first_byte_timeout``.
    :cvar EVICTED: It was idle, and others wanted its place.
    :cvar DRAIN: The daemon stopped.
    :cvar HANDSHAKE: No whole PROXY header or TLS handshake came within ``handshake_timeout``.
    :cvar HEADER: It had to begin with a PROXY header, and did not.
    :cvar REFUSED: Its PROXY header told of a client that may not come.
    :cvar TLS: The peer refused TLS, or broke it.
    :cvar NO_CLOSE_NOTIFY: FIN came in the middle of TLS: a truncation (RFC 8446 section 6.1).
    :cvar ERROR: The protocol raised.
    """

    EOF = "eof"
    RESET = "reset"
    QUIT = "quit"
    TOO_LONG = "too_long"
    MALFORMED = "malformed"
    IDLE = "idle"
    STALLED = "stalled"
    MAX_AGE = "max_age"
    MAX_BYTES = "max_bytes"
    FIRST_BYTE = "first_byte"
    EVICTED = "evicted"
    DRAIN = "drain"
    HANDSHAKE = "handshake"
    HEADER = "header"
    REFUSED = "refused"
    TLS = "tls"
    NO_CLOSE_NOTIFY = "no_close_notify"
    ERROR = "error"

    # That of the string which it equals; that of Enum is a function of Python's.
    __hash__ = str.__hash__


def howEnded(state: State, broken: bool) -> str:
    """
    How a connection ended, for log, counters and pages.

    :param state: its last one.
    :param broken: whether the peer, or the network, broke it.
    :returns: ``fin``; ``rst``, the peer's or the network's; or ``abort``, which is RST by us.
    """
    return "rst" if broken else "abort" if state is State.ABORTED else "fin"


# After an end of ours a peer may still send RST, and a deadline may break it off.
_ANY = ("fin", "rst", "abort")
# Whoever breaks a connection after its own FIN is told by `Reason.RESET`.
_AFTER_FIN = ("fin", "abort")

#: How connections end that end for each reason; the first one is the usual one.
ENDS: dict[Reason, tuple[str, ...]] = {
    **dict.fromkeys(Reason, _ANY),
    Reason.EOF: _AFTER_FIN,
    Reason.NO_CLOSE_NOTIFY: _AFTER_FIN,
    Reason.RESET: ("rst",),
    Reason.STALLED: ("abort",),
    Reason.HANDSHAKE: ("abort",),
    Reason.REFUSED: ("abort",),
    Reason.ERROR: ("abort", "fin", "rst"),
}


# The peer ended it, by its FIN or by what it sent.
_BY_PEER = (None, Reason.EOF, Reason.TLS, Reason.NO_CLOSE_NOTIFY, Reason.HEADER)
# Errors that the network makes, or the silence in it (tcp(7), ip(7)); others are the peer's RST.
_ON_THE_WAY = (
    *(errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTDOWN),
    *(errno.ENONET, errno.EPROTO, errno.EACCES, errno.EPERM, errno.ECONNABORTED),
)


def endedBy(reason: Reason | None, broken: bool, error: int) -> str:
    """
    Who ended a connection, as far as can be told: ``peer``, ``network`` or ``us``.

    :param broken: whether it ended with RST, or as a lost route does.
    :param error: by which error (errno(3)), if that is known.
    """
    if broken:
        return "network" if error in _ON_THE_WAY else "peer"
    return "peer" if reason in _BY_PEER else "us"
