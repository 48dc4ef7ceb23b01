"""
Where one message ends and the next begins: pure bytes in, pure bytes out.

TCP is a stream of bytes without packets.  A protocol that wants messages imposes the
boundaries itself: a delimiter after each (`Lines`), or a length before each
(`LengthPrefixed`; with two bytes this is DNS over TCP, RFC 1035 section 4.2.2).

A framer does not hand out messages one by one.  It finds the end of the *last* complete
message in what has arrived and returns everything up to there as one block, so that an
echo is one write however many messages a read held.  Cost is linear in the bytes fed,
whatever the split: an incomplete tail waits in one `bytearray` that grows by appending
(amortised doubling) and is never searched or copied again until its message is whole.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from struct import Struct

from echod.errors import MessageTooLong

__all__ = ["Framer", "LengthPrefixed", "Lines"]


class Framer(ABC):
    """
    Cuts a byte stream into blocks of whole messages.

    :ivar messages: how many whole messages have been returned so far.
    :param maxLength: the largest payload of one message in bytes, framing not counted.
    """

    def __init__(self, maxLength: int) -> None:
        self.maxLength = maxLength
        self.messages = 0
        self._tail = bytearray()

    @property
    def pending(self) -> int:
        """Bytes of the message that is still incomplete, its framing included."""
        return len(self._tail)

    @abstractmethod
    def feed(self, data: bytes) -> bytes:
        """
        Take the next bytes of the stream.

        :returns: every message that is now complete, with its framing, byte for byte as
            it arrived; ``b""`` when none is.
        :raises MessageTooLong: with the messages before the long one in ``complete``.
            The stream has no further boundaries after that: do not feed it again.
        """

    def _takeTail(self, data: bytes) -> bytes:
        """Join the waiting tail and ``data``: one copy, and none when nothing waits."""
        if not self._tail:
            return data
        joined = b"".join((self._tail, data))
        self._tail.clear()
        return joined


class Lines(Framer):
    r"""
    Messages that end with ``\n``; a ``\r`` before it belongs to the message.

    ``maxLength`` counts a line's bytes without its ``\n``.
    """

    def feed(self, data: bytes) -> bytes:
        """See `Framer.feed`."""
        waiting = len(self._tail)
        if waiting + len(data) > self.maxLength:
            start = self._overlong(waiting, data)
            if start >= 0:
                block = self._takeTail(data[:start]) if start else b""
                self.messages += block.count(b"\n")
                raise MessageTooLong(f"a line has more than {self.maxLength} bytes", block)
        end = data.rfind(b"\n") + 1
        if not end:
            self._tail += data
            return b""
        block = self._takeTail(data[:end])
        if end < len(data):
            self._tail += memoryview(data)[end:]
        self.messages += block.count(b"\n")
        return block

    def _overlong(self, waiting: int, data: bytes) -> int:
        r"""
        Where the first line above ``maxLength`` starts in ``data``, or -1.

        After the first line it hops: the last ``\n`` within ``maxLength + 1`` bytes of
        a line's start proves every line up to there short enough.  Two hops together
        pass more than ``maxLength`` bytes, so the search is linear.
        """
        limit = self.maxLength
        first = data.find(b"\n")
        if waiting + (first if first >= 0 else len(data)) > limit:
            return 0
        start = first + 1
        while len(data) - start > limit:
            last = data.rfind(b"\n", start, start + limit + 1)
            if last < 0:
                return start
            start = last + 1
        return -1


_LENGTHS = {1: Struct(">B"), 2: Struct(">H"), 4: Struct(">I")}


class LengthPrefixed(Framer):
    """
    Messages with a big-endian length before them that does not count itself.

    :param width: bytes of the length: 1, 2 (RFC 1035 section 4.2.2) or 4.
    """

    def __init__(self, width: int, maxLength: int) -> None:
        super().__init__(maxLength)
        self._width = width
        self._lengthAt = _LENGTHS[width].unpack_from
        # How long the tail must grow before it is worth another look.
        self._need = width

    def feed(self, data: bytes) -> bytes:
        """See `Framer.feed`."""
        if self._tail:
            if len(self._tail) + len(data) < self._need:
                self._tail += data
                return b""
            data = self._takeTail(data)
        width, lengthAt, limit = self._width, self._lengthAt, self.maxLength
        size = len(data)
        # `start` is where the message under inspection begins, `body` where its payload
        # does: everything before `start` is complete.
        start, body, count = 0, width, 0
        while body <= size:
            (length,) = lengthAt(data, start)
            if length > limit:
                self.messages += count
                raise MessageTooLong(
                    f"a message of {length} bytes is longer than {limit}", data[:start]
                )
            end = body + length
            if end > size:
                break
            count += 1
            start = end
            body = end + width
        else:
            length = 0
        self.messages += count
        self._need = width + length
        if start == size:
            return data
        self._tail += memoryview(data)[start:]
        return data[:start]
