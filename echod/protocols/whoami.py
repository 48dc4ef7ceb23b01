r"""
``whoami``: one line of JSON about the connection, then the end.

For those who want to know how they arrive: behind which address, through which balancer.
The name of a UNIX socket may be any bytes; those that are no UTF-8 are told as ``\xff``
(`echod.wire.addresses.formatName`).  What the kernel knows of a TCP connection, and the SYN as it
arrived, tell what the network between has changed.
"""

from __future__ import annotations

from typing import Any

import msgspec

from echod.kit import Stream, StreamMaker
from echod.wire.addresses import describeAddress

__all__ = ["whoami"]


async def _whoami(stream: Stream) -> None:
    facts: dict[str, Any] = {
        "peer": describeAddress(stream.peer),
        "local": describeAddress(stream.host),
        "protocol": "whoami",
        "transport": getattr(stream.host, "type", "unix").lower(),
    }
    if stream.credentials is not None:
        process, user, group = stream.credentials
        facts["credentials"] = {"process": process, "user": user, "group": group}
    facts.update(stream.layers)
    kernel = stream.kernelFacts()
    facts.update((name, kernel[name]) for name in ("tcp_info", "syn") if name in kernel)
    await stream.write(msgspec.json.encode(facts) + b"\n")


whoami = StreamMaker("whoami", "one line of JSON about the connection", _whoami, savesSYN=True)
