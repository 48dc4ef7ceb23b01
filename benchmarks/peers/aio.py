"""
An echo server of ``asyncio.Protocol``: ``python -m benchmarks.peers.aio LOOP WAY PORT [PEM]``.

LOOP is ``asyncio`` or ``uvloop``; PEM, a certificate and its key, makes it speak TLS.  WAY is
``plain``, without flow control, as in the documentation's example: a client that does not read
makes it hold all that the client sends.  Or it is ``flow``: while more than 64 KiB wait to be
sent, which is the transport's own limit, nothing is read.
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


class FlowEcho(Echo):
    """The same; it does not read while the transport has too much to send."""

    def pause_writing(self) -> None:
        """The transport's buffer is above its limit."""
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        """It has become small again."""
        self.transport.resume_reading()


_WAYS: dict[str, type[Echo]] = {"plain": Echo, "flow": FlowEcho}


async def serve(way: str, port: int, pem: str | None = None) -> None:
    """Serve until killed."""
    context = None
    if pem:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(pem)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_WAYS[way], "127.0.0.1", port, backlog=4096, ssl=context)
    await server.serve_forever()


if __name__ == "__main__":
    runOn(sys.argv[1], serve(sys.argv[2], int(sys.argv[3]), *sys.argv[4:]))
