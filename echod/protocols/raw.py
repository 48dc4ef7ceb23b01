"""
``raw``: every byte comes back (RFC 862 over TCP).

``quit`` names bytes that end the connection: the echo goes up to and including them,
wherever reads happened to split them, and nothing after.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from echod.kit import Connection, ConnectionMaker, ProtocolOptions, Reason

__all__ = ["RawOptions", "raw"]


class RawOptions(ProtocolOptions, frozen=True):
    """Options of ``raw``."""

    quit: Annotated[
        str, Meta(max_length=256, description="bytes (UTF-8) that end the connection; empty: none")
    ] = ""
    in_place: Annotated[bool, Meta(description="bulk is copied, and stays in its socket")] = False


class _Raw(Connection):
    verbatim = True

    def received(self, data: bytes) -> None:
        self.reply(data)


class _RawUntilQuit(Connection):
    def __init__(self, word: bytes) -> None:
        self._quit = word
        self._carry = b""  # the last len(quit) - 1 bytes echoed: where a split quit begins

    def received(self, data: bytes) -> None:
        carry, word = self._carry, self._quit
        seen = carry + data
        at = seen.find(word)
        if at < 0:
            self._carry = seen[len(seen) - len(word) + 1 :] if len(seen) >= len(word) else seen
            self.reply(data)
        else:
            self.reply(data[: at + len(word) - len(carry)])
            self.end(Reason.QUIT)


def _connection(settings: RawOptions) -> Connection:
    connection = _RawUntilQuit(settings.quit.encode()) if settings.quit else _Raw()
    connection.inPlace = settings.in_place
    return connection


raw = ConnectionMaker("raw", "every byte comes back (RFC 862)", _connection, RawOptions)
