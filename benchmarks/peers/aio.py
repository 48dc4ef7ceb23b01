"""
An echo server of ``asyncio.Protocol``: ``python -m benchmarks.peers.aio LOOP PORT``.

LOOP is ``asyncio`` or ``uvloop``.  No flow control, as in the documentation's example: a client
that does not read makes it hold all that the client sends.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

from benchmarks.peers.loops import runOn


class Echo(asyncio.Protocol):
    """Everything that comes goes back."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        # uvloop's is none of asyncio's classes.
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Send it back."""
        self.transport.write(data)


async def serve(port: int) -> None:
    """Serve until killed."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    runOn(sys.argv[1], serve(int(sys.argv[2])))
