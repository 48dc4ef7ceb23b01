"""
A transport that tells of what it echoes unseen, turn by turn, and of its end: `telling`.

Whose connections keep a timeline have transports of such a class.  All others have not, so that a
read need not look whether anybody wants to know.
"""

from __future__ import annotations

from typing import Literal, TypeVar

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.python.failure import Failure

from echod.transports.kernel_facts import lastFactsOf
from echod.transports.socket_stream import SocketStream

__all__ = ["silent", "telling"]

_Stream = TypeVar("_Stream", bound=SocketStream)


# By the class that each was made of: the same for all ports, so that attributes are found fast.
_made: dict[type, type] = {}


def telling(base: type[_Stream]) -> type[_Stream]:
    """The class of transports as ``base``'s that call what `echoUnseen` was given as ``told``."""
    if base not in _made:
        _made[base] = _make(base)
    return _made[base]


def _make(base: type[_Stream]) -> type[_Stream]:
    read, lost = base.doRead, base.connectionLost

    # mypy: a base that is a variable.
    class Telling(base):  # type: ignore[valid-type, misc]
        silentClass = base
        lateNames = (*getattr(base, "lateNames", ()), "_told")

        def doRead(self) -> ConnectionDone | ConnectionLost | Literal[False] | None:
            why = read(self)
            told = self._told
            if told is not None:
                told(self.echoedBytes, self.echoedAt)
            return why

        def connectionLost(self, reason: Failure) -> None:
            if self.connected and getattr(self.protocol, "timeline", None) is not None:
                self.lastFacts = lastFactsOf(self.socket, self._syn)
            lost(self, reason)

    Telling.__name__, Telling.__qualname__ = base.__name__, base.__qualname__
    return Telling


def silent(kind: type[_Stream]) -> type[_Stream]:
    """The class that `telling` made this one of; itself if it did not."""
    found: type[_Stream] = getattr(kind, "silentClass", kind)
    return found
