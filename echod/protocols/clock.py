"""
``daytime`` (RFC 867) and ``time`` (RFC 868): what time it is, once, then the end.

``time`` is 4 bytes, big-endian: seconds since 1900-01-01 00:00 UTC, which are 2 208 988 800 more
than since 1970; in 2036 it begins anew.  ``daytime`` is one line in UTC, in English whatever the
locale.
"""

from __future__ import annotations

import time as clock
from email.utils import formatdate
from struct import pack

from echod.kit import Stream, StreamMaker

__all__ = ["SINCE_1900", "daytime", "time"]

#: Seconds from 1900 to 1970 (RFC 868).
SINCE_1900 = 2_208_988_800


async def _daytime(stream: Stream) -> None:
    await stream.write(formatdate(clock.time(), usegmt=True).encode() + b"\r\n")


async def _time(stream: Stream) -> None:
    await stream.write(pack(">I", (int(clock.time()) + SINCE_1900) % (1 << 32)))


daytime = StreamMaker("daytime", "the date and time in words (RFC 867)", _daytime)
time = StreamMaker("time", "seconds since 1900 in 4 bytes (RFC 868)", _time)
