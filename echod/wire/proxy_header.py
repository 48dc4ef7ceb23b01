r"""
The PROXY header, versions 1 and 2: what a proxy tells of its client, before any payload.

Pure bytes in, a value out, after HAProxy's ``doc/proxy-protocol.txt`` (docs/wire.md P3, P4); each
version has a module, `echod.wire.proxy_line` and `echod.wire.proxy_binary`.  `parseHeader` is for
streams: it is given all that has come so far, as often as more comes, and costs the same however
little that was.  `parseDatagram` is for datagrams, each with a header of its own.  Who may send a
header, and for how long one is waited for, is the caller's business.

PyPI's ``proxy-protocol`` is not used.  Its last release is of April 2024; it cannot be given bytes
that follow a header (it reads them as addresses and TLVs), takes lines of any length and UDP on a
stream, checks no CRC32C without another package and calls right ones wrong with it, and answers
faults of the peer with half a dozen kinds of exception.
"""

from __future__ import annotations

from echod.errors import MalformedHeader
from echod.wire.proxy_binary import SIGNATURE, parseBinary
from echod.wire.proxy_line import LINE, parseLine
from echod.wire.proxy_values import ProxyHeader, shown

__all__ = ["parseDatagram", "parseHeader"]


def parseHeader(data: bytes, *, datagram: bool = False) -> tuple[ProxyHeader | None, int]:
    """
    The header that ``data`` begins with.

    :param data: all that has come, from the very first byte.
    :param datagram: whether it came in a datagram: then version 1 is refused; otherwise a proxy
        of datagrams is.
    :returns: the header and its length in bytes; what follows is payload and was not looked at.
        ``None`` and the length of ``data``, all of which belongs to the header, while it may still
        become one.
    :raises MalformedHeader: it cannot any more.
    """
    if SIGNATURE.startswith(data[: len(SIGNATURE)]):
        return parseBinary(data, datagram)
    if not datagram and LINE.startswith(data[: len(LINE)]):
        return parseLine(data)
    raise MalformedHeader(f"no PROXY header begins with {shown(data)}")


def parseDatagram(data: bytes) -> tuple[ProxyHeader, int]:
    """
    The header, of version 2, that a datagram begins with.

    :returns: the header and its length in bytes; the rest is payload.
    :raises MalformedHeader: there is none, or not all of it.
    """
    header, length = parseHeader(data, datagram=True)
    if header is None:
        raise MalformedHeader(f"a datagram ends within its PROXY header, after {length} bytes")
    return header, length
