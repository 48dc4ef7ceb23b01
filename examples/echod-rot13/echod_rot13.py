"""
rot13 as a protocol for echod, in the three ways that there are: one would do.

Served by ``twistd -n echod --listen rot13=tcp:1313`` once this is installed.
"""

from __future__ import annotations

from twisted.internet.protocol import Factory, Protocol

from echod.kit import FactoryMaker, MessageMaker, ProtocolOptions, Stream, StreamMaker
from echod.wire.framing import lines

LETTERS = b"abcdefghijklmnopqrstuvwxyz"
TABLE = bytes.maketrans(
    LETTERS + LETTERS.upper(),
    LETTERS[13:] + LETTERS[:13] + (LETTERS[13:] + LETTERS[:13]).upper(),
)


# 1. A coroutine on a stream: whatever arrives goes back, as it comes.


async def _rot13(stream: Stream) -> None:
    async for data in stream:
        await stream.write(data.translate(TABLE))


rot13 = StreamMaker("rot13", "each letter is moved by thirteen", _rot13)


# 2. A framing and a function: each line is answered with one; here with an option.


class Options(ProtocolOptions, frozen=True):
    """Options of ``rot13-lines``."""

    prefix: str = ""


def _answer(line: bytes, settings: Options) -> bytes:
    return settings.prefix.encode() + line.translate(TABLE)


rot13_lines = MessageMaker("rot13-lines", "the same for whole lines", lines, _answer, Options)


# 3. An ordinary Twisted factory, which knows nothing of echod.


class Rot13(Protocol):
    """Twisted's way."""

    def dataReceived(self, data: bytes) -> None:
        """Answer at once."""
        assert self.transport is not None
        self.transport.write(data.translate(TABLE))


rot13_twisted = FactoryMaker(
    "rot13-twisted", "the same by Twisted's own means", lambda: Factory.forProtocol(Rot13)
)
