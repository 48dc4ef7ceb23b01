"""How the service's reloads went: `ReloadRecord`, for whoever tells of it."""

from __future__ import annotations

import time

__all__ = ["ReloadRecord"]


class ReloadRecord:
    """
    The last reload that went well, and the refusal since then.

    :ivar succeededAt: when one last went well, in seconds since 1970; ``None``: none has.
    :ivar refused: why the last one was refused, in one line; empty once one has gone well since.
    :ivar refusedAt: when that was, in seconds since 1970; ``None`` where nothing is refused.
    """

    def __init__(self) -> None:
        self.succeededAt: float | None = None
        self.refused = ""
        self.refusedAt: float | None = None

    def succeed(self) -> None:
        """One went well: what was refused before is over."""
        self.succeededAt = time.time()
        self.refused, self.refusedAt = "", None

    def refuse(self, why: str) -> None:
        """One was refused, and nothing has changed."""
        self.refused, self.refusedAt = why, time.time()
