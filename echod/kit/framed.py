"""
What protocols with messages share: a framer in front of `Connection`.

Idle time runs from the last *whole* message (RFC 7766 section 6.2.3), so that a peer that
drips one byte at a time is idle all the same.
"""

from __future__ import annotations

from echod.connection.connection import Connection
from echod.connection.states import Reason
from echod.errors import FramingError, MessageTooLong
from echod.wire.framing import Framer

__all__ = ["MESSAGES", "SMALLEST_READ", "FramedConnection"]

#: Messages that one turn may answer, about: each costs time whatever its size, and others
#: wait meanwhile (an empty message takes 0.1 µs; eight peers that send them without end
#: delayed another's answer by 60 to 110 ms with reads of 64 KiB).
MESSAGES = 512
#: Bytes that one read may take however small the messages are: less would cost more for the
#: read than for them.
SMALLEST_READ = 2048


class FramedConnection(Connection):
    """
    Hands `messagesReceived` whole messages; ends at one that is too long, counts a cut one.

    :param framer: a fresh one, this connection's own.
    """

    bytesAreProgress = False
    largestRead = 16384
    # What a read may take by the size of the messages that came; written by _boundTurn.
    _read = largestRead

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
        broken = None
        try:
            block = framer.feed(data)
        except FramingError as error:
            block, broken = error.complete, error
        if block:
            count = framer.messages - self.messages
            self.messages = framer.messages
            if count > MESSAGES or self._read != self.largestRead:
                self._boundTurn(len(block), count)
            self.progressed()
            self.messagesReceived(block)
        if broken:
            tooLong = isinstance(broken, MessageTooLong)
            self.end(Reason.TOO_LONG if tooLong else Reason.MALFORMED)

    def _boundTurn(self, size: int, count: int) -> None:
        """Let the next read bring `MESSAGES` or so, if they are as long as those that came."""
        read = max(SMALLEST_READ, min(self.largestRead, size * MESSAGES // count))
        if read != self._read:
            self._read = read
            self.transport.limitReads(read)

    def heldBytes(self) -> int:
        """As any connection; and what has come of a message."""
        return super().heldBytes() + self._framer.pending

    def inputFinished(self) -> None:
        """An unfinished message is no message: it is counted, not answered."""
        if self._framer.pending:
            self.truncated = 1
