"""
``health``: one line, ``ready`` or ``draining``, then the end.

For balancers and probes.  Its listener closes last, so that a daemon which ends can say so for as
long as anybody is still served; what is sent to it is thrown away.
"""

from __future__ import annotations

from echod.interfaces import ServerContext
from echod.kit import Connection, ConnectionMaker, Reason

__all__ = ["health"]


class _Health(Connection):
    def __init__(self, context: ServerContext) -> None:
        super().__init__()
        self._context = context

    def begun(self) -> None:
        """Tell at once: nobody needs to ask."""
        self.reply(f"{self._context.health}\n".encode())
        self.end(Reason.QUIT)


health = ConnectionMaker("health", "one line, ready or draining, then the end", _Health, lasts=True)
