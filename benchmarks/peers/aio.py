"""
An echo server of ``asyncio.Protocol``: ``python -m benchmarks.peers.aio LOOP PORT [PEM]``.

LOOP is ``asyncio`` or ``uvloop``; PEM, a certificate and its key, makes it speak TLS.  No flow
control, as in the documentation's example: a client that does not read makes it hold all that
the client sends.
"""

from __future__ import annotations

import asyncio
import ssl
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


async def serve(port: int, pem: str | None = None) -> None:
    """Serve until killed."""
    context = None
    if pem:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(pem)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, "127.0.0.1", port, backlog=4096, ssl=context)
    await server.serve_forever()


if __name__ == "__main__":
    runOn(sys.argv[1], serve(int(sys.argv[2]), *sys.argv[3:]))
