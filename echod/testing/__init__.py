"""
For those who test: what speaks to echod, and protocols of their own.

* `running` starts a real listener and gives its port: for testing a client against echo.
* `checkProtocol` holds a protocol maker to what every listener promises.
* `memoryLink`, `tcpLink` and `unixLink` give the client's end of one connection, turn by turn.
* `PlainContext` tells a protocol of a server what the test wants it to.

It may know `echod.server` and every room below.  It is public (docs/api.md).
"""

from echod.testing.conformance import checkProtocol
from echod.testing.links import Link, memoryLink, tcpLink, unixLink
from echod.testing.memory_socket import MemorySocket
from echod.testing.plain_context import PlainContext
from echod.testing.running import Running, running
from echod.testing.stepped_loop import Loop

__all__ = [
    "Link",
    "Loop",
    "MemorySocket",
    "PlainContext",
    "Running",
    "checkProtocol",
    "memoryLink",
    "running",
    "tcpLink",
    "unixLink",
]
