r"""
``upper``: each line comes back in upper case; an example of a protocol that is a coroutine.

A line is at most 64 KiB.  ``readUntil`` raises when the peer finishes within a line, or sends a
longer one: nothing is answered then, and the connection ends.
"""

from __future__ import annotations

from echod.kit import Stream, StreamMaker

__all__ = ["upper"]


async def _upper(stream: Stream) -> None:
    while True:
        line = await stream.readUntil(b"\n")
        await stream.write(line.upper())


upper = StreamMaker("upper", "each line in upper case", _upper)
