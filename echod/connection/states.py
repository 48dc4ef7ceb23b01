"""
Where a connection stands, and why one ended: `State` and `Reason`.

`echod.connection.connection` draws the way from state to state.
"""

from __future__ import annotations

from enum import Enum

__all__ = ["Reason", "State"]


class State(Enum):
    """Where a connection stands; `echod.connection.connection` draws the way."""

    OPENING = "opening"
    OPEN = "open"
    DRAINING = "draining"
    FINISHING = "finishing"
    LINGERING = "lingering"
    CLOSED = "closed"
    ABORTED = "aborted"


class Reason(str, Enum):
    """
    Why a connection ended, as counters and log name it.

    The first cause; but what made us lose bytes that we owed (``RESET`` before our own end,
    ``STALLED``, ``ERROR``) takes its place.
    """

    EOF = "eof"  # the peer finished (FIN)
    RESET = "reset"  # the peer or the network broke it (RST)
    QUIT = "quit"  # the protocol had said all it had to say, or was asked to end
    TOO_LONG = "too_long"  # a message above the configured maximum
    MALFORMED = "malformed"  # bytes that are no message
    IDLE = "idle"  # nothing for idle_timeout
    STALLED = "stalled"  # unsent bytes, or answers still to come, stood still for stall_timeout
    MAX_AGE = "max_age"  # older than max_age
    MAX_BYTES = "max_bytes"  # it sent as much as it may
    FIRST_BYTE = "first_byte"  # nothing at all for first_byte_timeout
    EVICTED = "evicted"  # idle, and others wanted its place
    DRAIN = "drain"  # the daemon stopped
    HANDSHAKE = "handshake"  # no whole header or handshake within handshake_timeout
    HEADER = "header"  # what must begin with a PROXY header did not
    REFUSED = "refused"  # the header told of a client that may not come
    TLS = "tls"  # the peer refused TLS, or broke it
    NO_CLOSE_NOTIFY = "no_close_notify"  # FIN in the middle of TLS: a truncation (RFC 8446 6.1)
    ERROR = "error"  # the protocol raised
