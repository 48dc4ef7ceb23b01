"""Pipes that say what went through them: `CountedPipes` and `CountedMemoryPipes`."""

from __future__ import annotations

import os
import stat
from typing import Any

from echod.testing.memory_pipes import MemoryPipes
from echod.transports.pipes import Pipes

__all__ = ["CountedMemoryPipes", "CountedPipes"]


class CountedPipes(Pipes):
    """
    Between real sockets.

    :ivar moved: bytes that went from a socket into a pipe.
    :ivar refused: how often a socket did not take all that was in a pipe.
    """

    moved = 0
    refused = 0

    # Any: whatever those that are counted take.
    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._uncounted = self.splice
        self.splice = self._counted

    def _counted(self, source: int, target: int, limit: int, *more: int | None) -> int:
        filling = self._isPipe(target)
        try:
            count = self._uncounted(source, target, limit, *more)
        except OSError:
            self.refused += not filling
            raise
        if filling:
            self.moved += count
        return count

    def _isPipe(self, number: int) -> bool:
        return stat.S_ISFIFO(os.fstat(number).st_mode)


class CountedMemoryPipes(CountedPipes, MemoryPipes):
    """Between imitated sockets."""

    def _isPipe(self, number: int) -> bool:
        return number in self._held
