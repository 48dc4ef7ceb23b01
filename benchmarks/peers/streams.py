"""
An echo server of asyncio streams: ``python -m benchmarks.peers.streams LOOP PATTERN PORT``.

LOOP is ``asyncio`` or ``uvloop``; PATTERN is ``raw``, ``line`` or ``frame`` (a 2-byte length
before each message).  Each reply is drained, as the documentation's example does.
"""

from __future__ import annotations

import asyncio
import sys

from benchmarks.peers.loops import runOn


async def _raw(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


async def _line(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while line := await reader.readline():
        writer.write(line)
        await writer.drain()


async def _frame(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        head = await reader.readexactly(2)
        writer.write(head + await reader.readexactly(int.from_bytes(head, "big")))
        await writer.drain()


_PATTERNS = {"raw": _raw, "line": _line, "frame": _frame}


async def serve(pattern: str, port: int) -> None:
    """Serve until killed."""
    echo = _PATTERNS[pattern]

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await echo(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    runOn(sys.argv[1], serve(sys.argv[2], int(sys.argv[3])))
