"""
What ``echod check`` says to each protocol, and whether the answer is right.

A conversation is given a connection and a size.  Its bytes are random, so that no other answer can
be taken for theirs.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from echod.client.blocking import BlockingConnection, exchange
from echod.config.endpoints import UDPEndpoint
from echod.errors import EchodError

__all__ = ["CONVERSATIONS", "SHORTEST_LINE", "TURNED_AWAY", "WrongAnswer", "exchangeDatagram"]

#: Characters of an answer, and bytes of one that is not as it should be, that a message shows.
SHOWN, SHOWN_BYTES = 60, 20
#: Bytes of a line at least: a random one that is shorter might be the word that ends it all.
SHORTEST_LINE = 16
#: Bytes that may stand before an echoed line: more than echod's ``line.prefix`` may have.
PREFIX = 4096
#: What to ask when it ends too early.
TURNED_AWAY = (
    "is that protocol served there, is this client let in (deny, limits), does the listener want"
    " TLS or --proxy?"
)


class WrongAnswer(EchodError):
    """What came back is not what should; the message says what to do."""


def _raw(connection: BlockingConnection, size: int) -> int:
    """Half-close at once: all must come back after it."""
    sent = os.urandom(size)
    connection.send(sent)
    connection.finish()
    _receiveSame(connection, sent)
    _receiveEnd(connection)
    return size


def _dns(connection: BlockingConnection, size: int) -> int:
    """One message (RFC 1035 section 4.2.2), answered before our end."""
    sent = size.to_bytes(2, "big") + os.urandom(size)
    connection.send(sent)
    _receiveSame(connection, sent)
    connection.finish()
    _receiveEnd(connection)
    return size


def _line(connection: BlockingConnection, size: int) -> int:
    """One line, answered before our end with a line that ends with it."""
    sent = os.urandom(size).hex()[: size - 1].encode() + b"\n"
    connection.send(sent)
    answer = b""
    while b"\n" not in answer and len(answer) <= PREFIX + size:
        piece = connection.receive()
        if not piece:
            raise _early(len(answer), size)
        answer += piece
    line, end, rest = answer.partition(b"\n")
    if not (line + end).endswith(sent) or len(line) >= PREFIX + size:
        raise _wrong(f"{line[-SHOWN:]!r} does not end with the line that was sent")
    if rest:
        raise _more(rest)
    connection.finish()
    _receiveEnd(connection)
    return size


def _health(connection: BlockingConnection, size: int) -> int:
    """The listener speaks, one line, and ends."""
    answer = b""
    while piece := connection.receive():
        answer += piece
        if len(answer) > PREFIX:
            break
    if answer.rstrip(b"\r\n") != b"ready":
        raise WrongAnswer(
            f"it says {answer[:SHOWN]!r}, not ready: wait, or see whether health is served there"
        )
    return len(answer)


def exchangeDatagram(target: UDPEndpoint, header: bytes, size: int, timeout: float) -> int:
    """
    One there, one back, within ``timeout`` seconds.

    :param header: what stands before the bytes, and is not sent back.
    :raises WrongAnswer: another answer came.
    """
    sent = os.urandom(size)
    answer = exchange(target, header + sent, timeout)
    if answer != sent:
        raise _wrong(f"the answer has {len(answer)} bytes, and not those {size} that were sent")
    return size


#: By protocol, what is said; each returns how many bytes came back as they should, or raises
#: `WrongAnswer`.
CONVERSATIONS: dict[str, Callable[[BlockingConnection, int], int]] = {
    "raw": _raw,
    "line": _line,
    "dns": _dns,
    "health": _health,
}


def _receiveSame(connection: BlockingConnection, sent: bytes) -> None:
    at = 0
    while at < len(sent):
        piece = connection.receive()
        if not piece:
            raise _early(at, len(sent))
        expected = sent[at : at + len(piece)]
        if piece != expected:
            same = 0
            while piece[same : same + 1] == expected[same : same + 1]:
                same += 1
            if at + same == len(sent):
                raise _more(piece[same:])
            raise _wrong(
                f"byte {at + same} is not what was sent: {piece[same : same + SHOWN_BYTES]!r}"
            )
        at += len(piece)


def _receiveEnd(connection: BlockingConnection) -> None:
    piece = connection.receive()
    if piece:
        raise _more(piece)


def _early(got: int, size: int) -> WrongAnswer:
    return WrongAnswer(f"it ended after {got} of {size} bytes: {TURNED_AWAY}")


def _more(rest: bytes) -> WrongAnswer:
    return _wrong(f"more came than was sent: {rest[:SHOWN_BYTES]!r}")


def _wrong(what: str) -> WrongAnswer:
    return WrongAnswer(f"{what}: is that protocol served there, and by echod?")
