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

Who answers messages one by one asks for them: `Framer.split` takes a block apart, `Framer.wrap`
puts a framing around an answer.  A *framing* is what makes a framer of a maximum length: `lines`,
`int8`, `int16`, `int32`, `netstring`, ``fixed(n)``, or one made of your own pure function by
`cutting`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import partial
from struct import Struct

from echod.errors import FramingError, MessageTooLong

__all__ = [
    "Cut",
    "Framer",
    "Framing",
    "LengthPrefixed",
    "Lines",
    "cutting",
    "fixed",
    "int8",
    "int16",
    "int32",
    "lines",
    "netstring",
]


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
        :raises FramingError: the same for what is no message at all.
        """

    @abstractmethod
    def split(self, block: bytes) -> Iterator[tuple[bytes, bytes]]:
        """
        Take a block that `feed` returned apart.

        :returns: of each message its payload, and the whole of it as it arrived.
        """

    @abstractmethod
    def wrap(self, payload: bytes, message: bytes) -> bytes:
        """
        An answer's payload with the framing that belongs to it.

        :param message: what is answered, as it arrived.
        :raises ValueError: there is no such message in this framing.
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

    def split(self, block: bytes) -> Iterator[tuple[bytes, bytes]]:
        """See `Framer.split`: a payload is a line without its end."""
        start = 0
        while start < len(block):
            end = block.index(b"\n", start) + 1
            message = block[start:end]
            yield message[:-2] if message.endswith(b"\r\n") else message[:-1], message
            start = end

    def wrap(self, payload: bytes, message: bytes) -> bytes:
        """See `Framer.wrap`: an answer ends as its line did."""
        return payload + (b"\r\n" if message.endswith(b"\r\n") else b"\n")

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
        self._pack = _LENGTHS[width].pack
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

    def split(self, block: bytes) -> Iterator[tuple[bytes, bytes]]:
        """See `Framer.split`."""
        start, width = 0, self._width
        while start < len(block):
            end = start + width + self._lengthAt(block, start)[0]
            yield block[start + width : end], block[start:end]
            start = end

    def wrap(self, payload: bytes, message: bytes) -> bytes:
        """See `Framer.wrap`."""
        if len(payload) >= 1 << 8 * self._width:
            raise ValueError(f"{len(payload)} bytes do not fit a length of {self._width}")
        return self._pack(len(payload)) + payload


#: A pure function that finds the message at ``start``: ``cut(data, start)`` returns where its
#: payload begins and stops and where the next message starts, as soon as that can be told, all
#: of it there or not; ``None`` while it cannot.  Called again when it is all there.  Raises
#: `FramingError` for what cannot become a message.
Cut = Callable[[bytes | bytearray, int], tuple[int, int, int] | None]
#: Makes a framer of the largest payload in bytes.
Framing = Callable[[int], Framer]

#: Bytes that a framing may take on top of the largest payload.
OVERHEAD = 1024


class _Cutting(Framer):
    """
    Around a function of somebody's own.

    Linear as long as the function is constant: it is asked once for each message, once more when
    that is all there, and for each read while it cannot tell.
    """

    def __init__(self, cut: Cut, wrap: Callable[[bytes], bytes], maxLength: int) -> None:
        super().__init__(maxLength)
        self._cut = cut
        self._wrap = wrap
        # How long the tail must be before it is worth another look.
        self._need = 0

    def feed(self, data: bytes) -> bytes:
        """See `Framer.feed`."""
        tail = self._tail
        tail += data
        start = 0
        try:
            while start < len(tail) and len(tail) >= self._need:
                self._need = self._endOf(start)
                if not self._need or self._need > len(tail):
                    break
                self.messages += 1
                start = self._need
            self._checkLength(len(tail) - start - OVERHEAD)
        except FramingError as error:
            error.complete = bytes(tail[:start])
            raise
        block = bytes(tail[:start])
        del tail[:start]
        self._need = max(0, self._need - start)
        return block

    def _endOf(self, start: int) -> int:
        """Where the message after the one at ``start`` begins; 0 if that cannot be told yet."""
        found = self._cut(self._tail, start)
        if found is None:
            return 0
        begin, stop, end = found
        if not start <= begin <= stop <= end or end == start:
            raise FramingError(f"no message can be at {begin}, {stop}, {end} after {start}")
        self._checkLength(stop - begin)
        return end

    def _checkLength(self, length: int) -> None:
        if length > self.maxLength:
            raise MessageTooLong(f"a message of {length} bytes is longer than {self.maxLength}")

    def split(self, block: bytes) -> Iterator[tuple[bytes, bytes]]:
        """See `Framer.split`."""
        start = 0
        while start < len(block):
            found = self._cut(block, start)
            assert found is not None
            begin, stop, end = found
            yield block[begin:stop], block[start:end]
            start = end

    def wrap(self, payload: bytes, message: bytes) -> bytes:
        """See `Framer.wrap`."""
        return self._wrap(payload)


def cutting(cut: Cut, wrap: Callable[[bytes], bytes]) -> Framing:
    """
    Make a framing of two pure functions.

    :param cut: see `Cut`; at most `OVERHEAD` bytes of a message are not its payload.
    :param wrap: puts the framing around an answer's payload.
    """
    return partial(_Cutting, cut, wrap)


def fixed(size: int) -> Framing:
    """
    Messages of ``size`` bytes each, with nothing between them.

    :raises ValueError: there are no messages of less than one byte.
    """
    if size < 1:
        raise ValueError(f"messages of {size} bytes have no boundaries")

    def wrap(payload: bytes) -> bytes:
        if len(payload) != size:
            raise ValueError(f"an answer of {len(payload)} bytes where each has {size}")
        return payload

    return cutting(lambda data, start: (start, start + size, start + size), wrap)


#: Digits of a netstring's length at most: ten gigabytes are more than anybody takes in.
_LENGTH_DIGITS = 10


def _cutNetstring(data: bytes | bytearray, start: int) -> tuple[int, int, int] | None:
    """``5:hello,`` (D. J. Bernstein, Netstrings, 1997): no sign, no zeros before a number."""
    end = start + _LENGTH_DIGITS + 1
    colon = data.find(b":", start, end)
    digits = bytes(data[start : end if colon < 0 else colon])
    if (digits and not digits.isdigit()) or (len(digits) > 1 and digits.startswith(b"0")):
        raise FramingError(f"{digits!r} is no length")
    if colon < 0:
        if len(digits) > _LENGTH_DIGITS:
            raise FramingError(f"there is no colon in {digits!r}")
        return None
    if not digits:
        raise FramingError("there is no length before a colon")
    stop = colon + 1 + int(digits)
    if stop < len(data) and data[stop] != ord(","):
        raise FramingError("there is no comma after a netstring")
    return colon + 1, stop, stop + 1


#: Lines that end with LF, or with CR LF.
lines: Framing = Lines
#: A length of 1 byte before each message.
int8: Framing = partial(LengthPrefixed, 1)
#: A big-endian length of 2 bytes before each message, as DNS has it over TCP (RFC 1035 4.2.2).
int16: Framing = partial(LengthPrefixed, 2)
#: A big-endian length of 4 bytes before each message.
int32: Framing = partial(LengthPrefixed, 4)
#: ``5:hello,`` (D. J. Bernstein, Netstrings, 1997).
netstring: Framing = cutting(_cutNetstring, lambda payload: b"%d:%b," % (len(payload), payload))
