"""What the poller knows of a descriptor (`Entry`), and a word that a read may say (`QUICK`)."""

from __future__ import annotations

from typing import Any, Final

from echod.transports.loop.nested_epoll import NestedEpoll

__all__ = ["QUICK", "Entry"]

#: What a ``doRead`` returns, in place of ``None``, that has done next to nothing: it has read and
#: written a little, and called nobody who may take long.  The next one goes the shortest way.
QUICK: Final = False


class Entry:
    """
    What is known of a number.

    :ivar mask: what epoll is asked for.
    :ivar polled: which epoll that is.
    """

    __slots__ = ("descriptor", "mask", "polled")

    # Any: a reader, a writer, or both.
    def __init__(self, descriptor: Any, mask: int, polled: NestedEpoll) -> None:
        self.descriptor = descriptor
        self.mask = mask
        self.polled = polled
