"""
``dns``: messages with a 2-byte big-endian length before them come back, byte for byte.

The framing of DNS over TCP (RFC 1035 section 4.2.2) under the rules of RFC 7766; what is
inside is not looked at.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from echod.connection import Reason
from echod.framing import LengthPrefixed
from echod.maker import ConnectionMaker
from echod.protocols.framed import FramedConnection

__all__ = ["DNSOptions", "dns"]


class DNSOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of ``dns``."""

    max_length: Annotated[
        int, Meta(ge=0, le=65535, description="bytes of a message without its length")
    ] = 65535
    strict: Annotated[
        bool, Meta(description="drop what is unsent when the peer finishes (RFC 7766 6.2.4)")
    ] = False


class _DNS(FramedConnection):
    def __init__(self, settings: DNSOptions) -> None:
        super().__init__(LengthPrefixed(2, settings.max_length))
        self._strict = settings.strict

    def inputFinished(self) -> None:
        super().inputFinished()
        if self._strict and self.owes():
            self.abort(Reason.EOF)


# RFC 7766 section 6.2.3 asks for an idle timeout of seconds.
dns = ConnectionMaker(
    "dns",
    "messages with a 2-byte length come back (RFC 1035 4.2.2)",
    DNSOptions,
    _DNS,
    {"idle_timeout": 30.0},
)
