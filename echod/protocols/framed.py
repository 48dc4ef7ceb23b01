"""
What protocols with messages share: a framer in front of `Connection`.

Idle time runs from the last *whole* message (RFC 7766 section 6.2.3), so that a peer that
drips one byte at a time is idle all the same.
"""

from __future__ import annotations

from echod.connection import Connection, Reason
from echod.errors import MessageTooLong
from echod.framing import Framer

__all__ = ["FramedConnection"]


class FramedConnection(Connection):
    """
    Hands `messagesReceived` whole messages; ends at one that is too long, counts a cut one.

    :param framer: a fresh one, this connection's own.
    """

    bytesAreProgress = False
    # A read may hold thousands of the smallest messages, each of which costs time: this much
    # is one turn's work, and others get theirs (measured: eight peers that send empty
    # messages without end delay another's answer 60 to 110 ms with reads of 64 KiB).
    largestRead = 16384

    def __init__(self, framer: Framer) -> None:
        self._framer = framer

    def messagesReceived(self, block: bytes) -> None:
        """
        One or more whole messages with their framing, as they arrived.

        Echoes them in one write (RFC 7766 section 8); a subclass may answer otherwise.
        """
        self.reply(block)

    def received(self, data: bytes) -> None:
        """Pass on what is complete."""
        framer = self._framer
        tooLong = False
        try:
            block = framer.feed(data)
        except MessageTooLong as error:
            block, tooLong = error.complete, True
        if block:
            self.messages = framer.messages
            self.progressed()
            self.messagesReceived(block)
        if tooLong:
            self.end(Reason.TOO_LONG)

    def inputFinished(self) -> None:
        """An unfinished message is no message: it is counted, not answered."""
        if self._framer.pending:
            self.truncated = 1
