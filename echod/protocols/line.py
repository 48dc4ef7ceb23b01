r"""
``line``: whole lines come back, byte for byte.

A line ends with ``\n``; a ``\r`` before it is part of the line and kept.  ``prefix``
(``Echo: ``) stands before each answered line; ``quit`` is a line that is not echoed but
answered with ``goodbye``, ended as the quitting line was, and then the connection ends.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated

from msgspec import Meta

from echod.kit import SLICE, Connection, ConnectionMaker, FramedConnection, ProtocolOptions, Reason
from echod.wire.framing import Lines

__all__ = ["LineOptions", "line"]

_Word = Annotated[str, Meta(max_length=256, pattern=r"\A[^\r\n]*\Z")]


class LineOptions(ProtocolOptions, frozen=True):
    """Options of ``line``."""

    prefix: Annotated[str, Meta(max_length=256, description="stands before each answered line")] = (
        ""
    )
    quit: Annotated[_Word, Meta(description="a line that ends the connection; empty: none")] = ""
    goodbye: Annotated[_Word, Meta(description="the answer to quit")] = "Bye."
    # Not above SLICE: a connection's memory is promised.
    maxLength: Annotated[
        int, Meta(ge=1, le=SLICE, description="bytes of a line without its end")
    ] = SLICE


class _Line(FramedConnection):
    def __init__(self, settings: LineOptions) -> None:
        super().__init__(Lines(settings.maxLength))


class _AnsweredLine(FramedConnection):
    """With a prefix, a word to quit, or both."""

    def __init__(self, settings: LineOptions) -> None:
        super().__init__(Lines(settings.maxLength))
        self._prefix = settings.prefix.encode()
        self._quit = settings.quit.encode()
        self._goodbye = settings.goodbye.encode()

    def messagesReceived(self, block: bytes) -> None:
        found = _findQuit(block, self._quit) if self._quit else None
        if found is None:
            self._answer(block)
            return
        start, ending = found
        self._answer(block[:start], self._goodbye + ending)
        self.end(Reason.QUIT)

    def _answer(self, lines: bytes, last: bytes = b"") -> None:
        if not lines or len(lines) + len(self._prefix) * lines.count(b"\n") <= SLICE:
            self.reply(_prefixed(lines, self._prefix) + last)
        else:
            self.replyEach(_slices(lines, self._prefix, last))


def _findQuit(block: bytes, word: bytes) -> tuple[int, bytes] | None:
    """Where the line ``word`` starts in whole lines, and how it ends; linear."""
    match = re.match(re.escape(word) + rb"(\r?\n)", block)
    if match is not None:
        return 0, match[1]
    match = re.search(rb"\n" + re.escape(word) + rb"(\r?\n)", block)
    return (match.start() + 1, match[1]) if match is not None else None


def _prefixed(lines: bytes, prefix: bytes) -> bytes:
    """Put ``prefix`` before each of whole ``lines``."""
    if not prefix or not lines:
        return lines
    return prefix + lines[:-1].replace(b"\n", b"\n" + prefix) + b"\n"


def _slices(lines: bytes, prefix: bytes, last: bytes) -> Iterator[bytes]:
    r"""
    The same in pieces of at most `SLICE` bytes, whatever share of ``lines`` is ``\n``.

    A piece may end within a line: the prefix of a line goes with the ``\n`` before it.
    """
    step = SLICE // (1 + len(prefix))
    body = len(lines) - 1
    yield prefix
    for start in range(0, body, step):
        yield lines[start : min(start + step, body)].replace(b"\n", b"\n" + prefix)
    yield b"\n" + last


def _connection(settings: LineOptions) -> Connection:
    return (_AnsweredLine if settings.prefix or settings.quit else _Line)(settings)


line = ConnectionMaker("line", "whole lines come back", _connection, LineOptions)
