"""
What is answered, in pieces that are made when there is room for them: `Reply` and `listed`.

A list may have ten thousand rows, and its reader may be slow.  So it is never whole anywhere: a row
is asked for, encoded and sent, and the next one is asked for as long as the reader takes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import Struct

from echod.admin.fair_turns import SharedTurns
from echod.admin.safe_json import safeJSON
from echod.errors import oneLine

__all__ = ["PIECE", "Reply", "document", "line", "lines", "listed", "whole"]

#: Bytes of a piece, about.
PIECE = 16384
#: Bytes of a list that are kept to see whether it is whole in one turn.
FIRST = 131072

_JSON = b"application/json; charset=utf-8"
_TEXT = b"text/plain; charset=utf-8"


class Reply(Struct, frozen=True, kw_only=True):
    """
    An answer to a request.

    :ivar kind: its Content-Type.
    :ivar pieces: its body.
    :ivar length: bytes of it, where they are known.
    :ivar headers: more of them.
    """

    code: int = 200
    kind: bytes
    pieces: Iterator[bytes]
    length: int | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()


def whole(
    body: bytes, kind: bytes, code: int = 200, headers: tuple[tuple[bytes, bytes], ...] = ()
) -> Reply:
    """An answer that is there already."""
    pieces = (body[start : start + PIECE] for start in range(0, len(body), PIECE))
    return Reply(code=code, kind=kind, pieces=pieces, length=len(body), headers=headers)


def line(code: int, text: str, *headers: tuple[bytes, bytes]) -> Reply:
    """One line of text."""
    return whole(f"{oneLine(text)}\n".encode(), _TEXT, code, headers)


def lines(text: str) -> Reply:
    """Lines of our own."""
    return whole(text.encode(), _TEXT)


def document(name: str, values: Mapping[str, Any]) -> Reply:
    """
    A JSON object that is there already.

    :param name: its ``format``.
    """
    return whole(safeJSON({"format": name, **values}) + b"\n", _JSON)


def listed(
    name: str, key: str, rows: Iterator[Mapping[str, Any]], limit: int, turns: SharedTurns
) -> Reply:
    """
    A JSON object with a list that is made as it is read.

    ``consistent`` stands before the list: whether all rows are as of one moment.  They are if they
    were made in the first turn, and take no more than `FIRST` bytes.  ``more`` stands behind it:
    whether the limit has left some off.

    :param name: its ``format``.
    :param key: what the list is called.
    :param limit: rows at most.
    """
    return Reply(kind=_JSON, pieces=_list(name, key, rows, limit, turns))


def _list(
    name: str, key: str, rows: Iterator[Mapping[str, Any]], limit: int, turns: SharedTurns
) -> Iterator[bytes]:
    encoded = _Rows(rows, limit)
    first: list[bytes] = []
    size = 0
    for row in encoded:
        first.append(row)
        size += len(row)
        if size >= FIRST or turns.over():
            break
    head = safeJSON({"format": name, "consistent": encoded.ended})
    yield head[:-1] + b"," + safeJSON(key) + b":["
    # In pieces, from the first row on: what was sent is forgotten.
    first.reverse()
    while first:
        yield first.pop()
    for row in encoded:
        yield row
    yield b'],"more":' + safeJSON(encoded.more) + b"}\n"


class _Rows:
    """
    Rows as JSON, a comma before each but the first; nothing where the next is not found yet.

    :ivar ended: whether there is none left, within the limit.
    :ivar more: whether the limit has left some off.
    """

    def __init__(self, rows: Iterator[Mapping[str, Any]], limit: int) -> None:
        self._rows = rows
        self._left = limit
        self._comma = b""
        self.ended = self.more = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        row = None if self.ended else next(self._rows, None)
        if row is not None and not row:
            return b""
        if row is None or not self._left:
            self.ended, self.more = True, self.more or row is not None
            raise StopIteration
        self._left -= 1
        data = self._comma + safeJSON(row)
        self._comma = b","
        return data
