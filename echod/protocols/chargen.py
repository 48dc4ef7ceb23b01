"""
``chargen``: lines of 72 characters without end, each one place further (RFC 864; docs/wire.md E4).

What arrives is thrown away.  The pattern is a reply made slice by slice, so that a peer which does
not read costs nothing; reading goes on meanwhile, because the peer's FIN is the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat

from echod.kit import Connection, ConnectionMaker

__all__ = ["PATTERN", "chargen"]

_CHARACTERS = bytes(range(32, 127))
#: As long as there are characters, each line begins with another one; then it begins anew.
PATTERN = b"".join(
    (_CHARACTERS + _CHARACTERS)[start : start + 72] + b"\r\n" for start in range(len(_CHARACTERS))
)


class _Chargen(Connection):
    alwaysReads = True

    def begun(self) -> None:
        self.replyEach(repeat(PATTERN))

    def received(self, data: bytes) -> None:
        """Counted, that is all."""

    def inputFinished(self) -> None:
        """Stop: the rest of the pattern is nothing."""
        self.replyEach(_nothing())

    ended = inputFinished


def _nothing() -> Iterator[bytes]:
    return iter(())


chargen = ConnectionMaker("chargen", "characters without end (RFC 864)", _Chargen)
