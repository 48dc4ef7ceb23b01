"""
What a connection is called in the log, in metrics and on pages: `idOf`.

An id is a string such as ``k4x2mq9d-1f``: a word for the process, drawn at random as it starts, and
the number of the connection in it.  So ids are unique over restarts, and over processes of one
machine.  Programs must take one as it is, and read nothing out of it.
"""

from __future__ import annotations

import itertools
import secrets

__all__ = ["idOf", "nextNumber", "numberOf"]

#: Without those that look alike.
_ALPHABET = "23456789abcdefghjkmnpqrstuvwxyz"
#: A word of 8 of them is one of 8.5e11.
_PROCESS = "".join(secrets.choice(_ALPHABET) for _ in range(8))

_numbers = itertools.count(1)

#: The number of a connection that has none yet.
nextNumber = _numbers.__next__


def idOf(number: int) -> str:
    """The id of the connection with this number."""
    return f"{_PROCESS}-{number:x}"


def numberOf(name: str) -> int | None:
    """The number of the connection that has this id; ``None`` if it is none of this process."""
    process, _, number = name.partition("-")
    if process != _PROCESS:
        return None
    try:
        found = int(number, 16)
    except ValueError:
        return None
    # Not " 1F": there is one way to write it.
    return found if found > 0 and idOf(found) == name else None
