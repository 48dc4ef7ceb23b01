"""
What a PROXY header tells, as values: `ProxyHeader`, and `ProxyTLS` in it.

`echod.wire.proxy_header` makes them of bytes.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

__all__ = ["ProxyHeader", "ProxyTLS", "proxyFacts", "shown"]

#: Bytes of the peer's that an error shows at most.
SHOWN = 20


class ProxyTLS(Struct, frozen=True, kw_only=True):
    """
    How a client came to its proxy, if that was over TLS; texts are printable.

    :ivar version: such as ``TLSv1.3``.
    :ivar cipher: its name as OpenSSL has it.
    :ivar commonName: of the client's certificate.
    :ivar signatureAlgorithm: that the proxy's certificate was signed with, such as ``RSA-SHA256``.
    :ivar keyAlgorithm: of the proxy's certificate, such as ``RSA2048``.
    :ivar presented: whether the client showed a certificate.
    :ivar verified: whether it did and the proxy found it good.
    """

    version: str | None = None
    cipher: str | None = None
    commonName: str | None = None
    signatureAlgorithm: str | None = None
    keyAlgorithm: str | None = None
    presented: bool = False
    verified: bool = False


class ProxyHeader(Struct, frozen=True, kw_only=True):
    """
    What a header tells; texts are printable.

    :ivar version: 1 or 2.
    :ivar source: the client's numeric address and port; ``None`` where the real ones count: the
        proxy speaks for itself (LOCAL), knows none (UNKNOWN, UNSPEC) or has paths (AF_UNIX).
    :ivar destination: where the client connected to, or ``None`` with ``source``.
    :ivar datagram: whether the client sent datagrams.
    :ivar authority: the host that the client asked for, such as TLS's server name.
    :ivar alpn: the protocol that it agreed on with the proxy.
    :ivar uniqueId: the proxy's name for the connection, at most 128 bytes.
    :ivar tls: how it came to the proxy; ``None`` if not over TLS.
    """

    version: int
    source: tuple[str, int] | None = None
    destination: tuple[str, int] | None = None
    datagram: bool = False
    authority: str | None = None
    alpn: str | None = None
    uniqueId: bytes | None = None
    tls: ProxyTLS | None = None


def proxyFacts(header: ProxyHeader) -> dict[str, Any]:
    """What a header tells besides addresses, for those who read JSON: what is known, by name."""
    facts: dict[str, Any] = {
        "version": header.version,
        "authority": header.authority,
        "alpn": header.alpn,
        "unique_id": None if header.uniqueId is None else header.uniqueId.hex(),
    }
    tls = header.tls
    if tls is not None:
        facts["tls"] = {
            "version": tls.version,
            "cipher": tls.cipher,
            "common_name": tls.commonName,
            "verified": tls.verified,
        }
        facts["tls"] = {key: value for key, value in facts["tls"].items() if value is not None}
    return {key: value for key, value in facts.items() if value is not None}


def shown(data: bytes) -> str:
    """A peer's bytes as an error shows them: cut, and escaped."""
    return repr(data[:SHOWN]) + ("..." if len(data) > SHOWN else "")
