"""
What a listener allows: `Limits`, the keys that ``[defaults]`` and each ``[[listener]]`` have.

Pure: values, their bounds and what they are without being given.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from echod.errors import ConfigurationError
from echod.wire.keys import keyOf
from echod.wire.networks import Networks

__all__ = ["Limits", "Seconds"]

_YEAR = 365 * 24 * 3600
#: Events of a timeline.
MOST = 65536

# Units, as the documentation shows them.
_SECONDS = {"unit": "s"}
_BYTES = {"unit": "bytes"}
_BYTE_RATE = {"unit": "bytes/s"}

#: A time of a configuration.
Seconds = Annotated[float, Meta(ge=0, le=_YEAR, extra=_SECONDS)]


class Limits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename=keyOf):
    """
    What a listener allows; the keys of ``[defaults]`` and of each ``[[listener]]``.

    The description of a field is its help; what else there is to know stands here.  The table of
    limits in docs/configuration.md is computed from both.

    :ivar maxConnections: At the limit the connection that has been idle longest, for a second at
        least, makes room; if there is none, the new one is closed.
    :ivar backlog: A socket that was passed keeps its own.
    :ivar bindTimeout: This is at the start alone.  If the address has not come by then, the exit
        status is 75; with 0 it is 1.
    :ivar idleTimeout: Where the protocol has messages, a whole message counts, not a byte.
    :ivar stallTimeout: Then the connection is reset.  Below 20 a line at start says that slow
        readers are cut.
    :ivar lingerTimeout: Then the connection is reset.
    :ivar maxAge: Then comes our FIN.
    :ivar handshakeTimeout: It runs from accepting, over both together.  0 is refused.
    :ivar firstByteTimeout: Then comes our FIN.
    :ivar maxBytes: Then comes our FIN.
    :ivar bytesPerSecond: A second's worth may come at once.  Then reading rests; nothing is
        dropped.
    :ivar listenerBytesPerSecond: All connections of the listener share it, and take turns.
    :ivar maxPerSource: Not for UNIX sockets, whose mode says who may come, unless ``proxy``.
    :ivar newPerSecond: Not for UNIX sockets, unless ``proxy``.
    :ivar sourcePrefix: With ``[32, 64]`` each IPv6 network of 64 bits is one source.  0: all
        addresses are one source.
    :ivar allow: Of ``allow`` and ``deny`` the longest prefix decides.  Not for UNIX sockets,
        unless ``proxy``.
    :ivar deny: See ``allow``.
    :ivar datagramsPerSecond: These are the answers of UDP.  All sources together get ten times
        as many.
    :ivar reflectorPorts: These are source ports of UDP.
    :ivar timeline: What happens over and over is one event (docs/insight.md); each takes 200 bytes
        of memory at most.  Unless given it is
        32 where there is an `admin` listener, and else 0.
    :ivar keepalive: After six questions without an answer the peer is gone.
    """

    maxConnections: Annotated[
        int,
        Meta(
            ge=1, le=1_000_000, description="connections at a time", extra={"unit": "connections"}
        ),
    ] = 1000
    backlog: Annotated[
        int,
        Meta(
            ge=1,
            le=65535,
            description="connections that wait to be accepted",
            extra={"unit": "connections"},
        ),
    ] = 4096
    bindTimeout: Annotated[
        Seconds, Meta(description="seconds to try an address that is not there yet; 0: once")
    ] = 0.0
    idleTimeout: Annotated[Seconds, Meta(description="seconds without a byte; 0: never")] = 0.0
    stallTimeout: Annotated[
        Seconds, Meta(description="seconds that unsent bytes may stand still; 0: for ever")
    ] = 60.0
    lingerTimeout: Annotated[
        Seconds, Meta(description="seconds to wait for the peer's end after ours; 0: none")
    ] = 5.0
    maxAge: Annotated[Seconds, Meta(description="seconds a connection may live; 0: for ever")] = 0.0
    handshakeTimeout: Annotated[
        float,
        Meta(
            gt=0,
            le=_YEAR,
            description="seconds for a PROXY header and the TLS handshake",
            extra=_SECONDS,
        ),
    ] = 10.0
    firstByteTimeout: Annotated[
        Seconds, Meta(description="seconds until a peer must have sent something; 0: never")
    ] = 0.0
    maxBytes: Annotated[
        int,
        Meta(
            ge=0,
            le=1 << 53,
            description="bytes that one connection may send; 0: no limit",
            extra=_BYTES,
        ),
    ] = 0
    bytesPerSecond: Annotated[
        int,
        Meta(
            ge=0,
            le=1 << 40,
            description="bytes a second read of a connection; 0: no limit",
            extra=_BYTE_RATE,
        ),
    ] = 0
    listenerBytesPerSecond: Annotated[
        int,
        Meta(
            ge=0,
            le=1 << 40,
            description="bytes a second read of all; 0: no limit",
            extra=_BYTE_RATE,
        ),
    ] = 0
    maxPerSource: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="connections of one source; 0: no limit",
            extra={"unit": "connections"},
        ),
    ] = 0
    newPerSecond: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="new connections a second of one source; 0: any",
            extra={"unit": "connections/s"},
        ),
    ] = 0
    sourcePrefix: Annotated[
        tuple[Annotated[int, Meta(ge=0, le=32)], Annotated[int, Meta(ge=0, le=128)]],
        Meta(
            description="bits of IPv4 and IPv6 addresses that tell sources apart [32,128]",
            extra={"unit": "bits"},
        ),
    ] = (32, 128)
    allow: Annotated[
        list[str], Meta(description="networks that may come; if given, nobody else may")
    ] = msgspec.field(default_factory=list)
    deny: Annotated[list[str], Meta(description="networks that may not come")] = msgspec.field(
        default_factory=list
    )
    datagramsPerSecond: Annotated[
        int,
        Meta(
            ge=0,
            le=10_000_000,
            description="datagrams a second of one source; 0: no limit",
            extra={"unit": "datagrams/s"},
        ),
    ] = 10_000
    reflectorPorts: Annotated[
        list[Annotated[int, Meta(ge=0, le=65535)]] | None,
        Meta(description="ports whose datagrams are not answered; those of known reflectors"),
    ] = None
    timeline: Annotated[
        Annotated[int, Meta(ge=0, le=MOST)] | None,
        Meta(
            description="events kept of each connection; 0: none; 32 with an admin listener",
            extra={"unit": "events"},
        ),
    ] = None
    keepalive: Annotated[
        int,
        Meta(ge=0, le=32767, description="idle seconds before TCP asks; 0: off", extra=_SECONDS),
    ] = 60

    def __post_init__(self) -> None:
        try:
            Networks(self.allow, self.deny)
        except ConfigurationError as error:
            # So that msgspec says where.
            raise ValueError(str(error)) from error
