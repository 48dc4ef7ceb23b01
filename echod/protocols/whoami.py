r"""
``whoami``: one line of JSON about the connection, then the end.

For those who want to know how they arrive: behind which address, through which balancer.
The name of a UNIX socket may be any bytes; those that are no UTF-8 are told as ``\xff``
(`echod.wire.addresses.formatName`).
"""

from __future__ import annotations

from typing import Any

import msgspec
from twisted.internet.address import IPv4Address, IPv6Address

from echod.kit import Stream, StreamMaker
from echod.wire.addresses import formatAddress, formatName
from echod.wire.proxy_header import proxyFacts

__all__ = ["whoami"]


def _describe(address: Any) -> str | None:
    if isinstance(address, IPv4Address | IPv6Address):
        return formatAddress(address.host, address.port)
    name = getattr(address, "name", None)
    return None if name is None else formatName(name)


async def _whoami(stream: Stream) -> None:
    facts: dict[str, Any] = {
        "peer": _describe(stream.peer),
        "local": _describe(stream.host),
        "protocol": "whoami",
        "transport": getattr(stream.host, "type", "unix").lower(),
    }
    if stream.credentials is not None:
        process, user, group = stream.credentials
        facts["credentials"] = {"process": process, "user": user, "group": group}
    if stream.tls is not None:
        facts["tls"] = stream.tls
    if stream.proxied is not None:
        proxy = _describe(stream.proxyPeer)
        facts["proxy"] = {
            **({} if proxy is None else {"peer": proxy}),
            **proxyFacts(stream.proxied),
        }
    await stream.write(msgspec.json.encode(facts) + b"\n")


whoami = StreamMaker("whoami", "one line of JSON about the connection", _whoami)
