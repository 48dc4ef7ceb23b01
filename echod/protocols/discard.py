"""``discard``: whatever arrives is thrown away, and nothing ever comes back (RFC 863)."""

from __future__ import annotations

from echod.kit import BothMaker, Connection
from echod.protocols.datagram import Discard

__all__ = ["discard"]


class _Discard(Connection):
    def received(self, data: bytes) -> None:
        """Counted, that is all."""


discard = BothMaker("discard", "everything is thrown away (RFC 863)", _Discard, datagram=Discard)
