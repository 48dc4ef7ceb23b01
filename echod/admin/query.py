"""
What stands behind the ``?`` of a request: `parseQuery`, strict.

A key that is not known, or stands there twice, is refused: who has mistyped it is not to believe an
answer to something else.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import unquote_to_bytes

from echod.errors import UnknownWord

__all__ = ["LIMIT", "MOST", "limitOf", "parseQuery"]

#: Rows of a list, unless more or fewer are asked for; and at most.
LIMIT = 1000
MOST = 10_000


def parseQuery(query: bytes, keys: Sequence[str]) -> dict[str, str]:
    """
    The values by their keys.

    :param keys: those that there are.
    :raises UnknownWord: there is another, or one twice, or a value that is not UTF-8.
    """
    found: dict[str, str] = {}
    for pair in filter(None, query.split(b"&")):
        name, equals, value = pair.partition(b"=")
        key = name.decode("latin-1")
        if key not in keys or not equals:
            there = f"write KEY=VALUE; there are: {', '.join(keys)}" if keys else "there is none"
            raise UnknownWord(f"no key {key!r} here; {there}")
        if key in found:
            raise UnknownWord(f"{key} is given twice; once is enough")
        try:
            found[key] = unquote_to_bytes(value.replace(b"+", b" ")).decode()
        except UnicodeDecodeError:
            raise UnknownWord(f"{key} is not UTF-8") from None
    return found


def limitOf(text: str | None) -> int:
    """
    How many rows are asked for.

    :param text: as it was written; ``None``: it was not.
    :raises UnknownWord: it is no number from 1 to `MOST`.
    """
    if text is None:
        return LIMIT
    digits = len(str(MOST))
    if not (text.isascii() and text.isdigit() and len(text) <= digits and 1 <= int(text) <= MOST):
        raise UnknownWord(f"limit {text[:digits]!r}: write a number from 1 to {MOST}")
    return int(text)
