"""
Messages with a big-endian length before them come back, byte for byte.

``dns`` has 2 bytes: the framing of DNS over TCP (RFC 1035 section 4.2.2) under the rules of
RFC 7766; what is inside is not looked at.  ``int8`` and ``int32`` have one byte and four.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from echod.kit import (
    SLICE,
    BothMaker,
    Connection,
    ConnectionMaker,
    FramedConnection,
    ProtocolOptions,
    Reason,
)
from echod.protocols.datagram import Echo
from echod.wire import framing

__all__ = ["DNSOptions", "Int8Options", "Int32Options", "dns", "int8", "int32"]


class DNSOptions(ProtocolOptions, frozen=True):
    """Options of ``dns``."""

    maxLength: Annotated[
        int, Meta(ge=0, le=65535, description="bytes of a message without its length")
    ] = 65535
    strict: Annotated[
        bool, Meta(description="drop what is unsent when the peer finishes (RFC 7766 6.2.4)")
    ] = False


class _DNS(FramedConnection):
    def __init__(self, settings: DNSOptions) -> None:
        super().__init__(framing.int16(settings.maxLength))
        self._strict = settings.strict

    def inputFinished(self) -> None:
        super().inputFinished()
        if self._strict and self.owes():
            self.abort(Reason.EOF)


class _DNSDatagram(Echo):
    """A datagram is a message without its length (RFC 1035 section 4.2.1)."""

    def __init__(self, settings: DNSOptions) -> None:
        self._maxLength = settings.maxLength

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        if len(datagram) <= self._maxLength:
            super().datagramReceived(datagram, addr)


# RFC 7766 section 6.2.3 asks for an idle timeout of seconds.
dns = BothMaker(
    "dns",
    "messages with a 2-byte length come back (RFC 1035 4.2.2); over UDP without one",
    _DNS,
    DNSOptions,
    {"idle_timeout": 30.0},
    datagram=_DNSDatagram,
)


class Int8Options(ProtocolOptions, frozen=True):
    """Options of ``int8``."""

    maxLength: Annotated[
        int, Meta(ge=0, le=255, description="bytes of a message without its length")
    ] = 255


class Int32Options(ProtocolOptions, frozen=True):
    """Options of ``int32``."""

    # Not above SLICE: a connection's memory is promised.
    maxLength: Annotated[
        int, Meta(ge=0, le=SLICE, description="bytes of a message without its length")
    ] = SLICE


def _int8(settings: Int8Options) -> Connection:
    return FramedConnection(framing.int8(settings.maxLength))


def _int32(settings: Int32Options) -> Connection:
    return FramedConnection(framing.int32(settings.maxLength))


int8 = ConnectionMaker("int8", "messages with a 1-byte length come back", _int8, Int8Options)
int32 = ConnectionMaker("int32", "messages with a 4-byte length come back", _int32, Int32Options)
