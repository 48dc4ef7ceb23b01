"""
What is measured of a server, as plain values: `Measurements`, which metrics are made of.

`echod.interfaces.ServerInsight.measurements` gives them.  All of one listener is in one tuple;
times are seconds, and sizes bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

__all__ = [
    "DatagramMeasurements",
    "Distribution",
    "Example",
    "Measurements",
    "StreamMeasurements",
]


class Example(NamedTuple):
    """
    A connection that is an example of a value.

    :ivar id: what it is called in the log and on pages.
    :ivar value: the value.
    :ivar at: when it came, in seconds since 1970.
    """

    id: str
    value: float
    at: float


class Distribution(NamedTuple):
    """
    How many values there were of each size.

    :ivar bounds: the greatest value of each bucket, in order; what is greater has one more.
    :ivar counts: values in each bucket, the last one's included.
    :ivar sum: of all values.
    :ivar examples: the last example in each bucket, if there was one.
    """

    bounds: Sequence[float]
    counts: Sequence[int]
    sum: float
    examples: Sequence[Example | None]


class StreamMeasurements(NamedTuple):
    """
    Of a listener of connections, the counters of those that it has succeeded included.

    :ivar listener: its protocol and endpoint as configured; a number follows where two are alike.
    :ivar open: connections that are not gone, by `echod.connection.states.State`.
    :ivar accepted: connections that came in.
    :ivar refused: connections turned away, by reason.
    :ivar closed: connections that are gone, by reason and end; each that can be is there.
    :ivar last: the last one of these, with the seconds that it lived.
    :ivar received: bytes of payload that were read for the protocol.
    :ivar sent: bytes of payload that were handed over to be sent.
    :ivar discarded: bytes that were thrown away after our own end.
    :ivar cut: connections that were still owed bytes when we gave up; ``cutBytes`` how many bytes.
    :ivar held: bytes of payload that are held now, outside of the sockets.
    :ivar seconds: how long connections lived.
    :ivar bytes: how many bytes came over each.
    :ivar firstByte: seconds from accepting each to its first byte, where that is known.
    :ivar certificates: until when each is good, by name, in seconds since 1970.
    """

    listener: str
    protocol: str
    open: Mapping[str, int]
    accepted: int
    refused: Mapping[str, int]
    closed: Mapping[tuple[str, str], int]
    last: Mapping[tuple[str, str], Example]
    received: int
    sent: int
    discarded: int
    cut: int
    cutBytes: int
    messages: int
    truncated: int
    pauses: int
    held: int
    seconds: Distribution
    bytes: Distribution
    firstByte: Distribution
    certificates: Mapping[str, float]


class DatagramMeasurements(NamedTuple):
    """
    Of a listener of datagrams.

    :ivar listener: as in `StreamMeasurements`.
    :ivar received: datagrams that came, refused ones included; ``receivedBytes`` what was in them.
    :ivar sent: datagrams that were sent; ``sentBytes`` what was in them.
    :ivar refused: datagrams that were not answered, by reason.
    :ivar errors: errors of its socket, and of its protocol.
    """

    listener: str
    protocol: str
    received: int
    sent: int
    receivedBytes: int
    sentBytes: int
    refused: Mapping[str, int]
    errors: int


class Measurements(NamedTuple):
    """
    Of a server.

    :ivar streams: listeners of connections; one that a reload took away stays until a later reload
        finds it without connections.
    :ivar datagrams: listeners of datagrams.
    :ivar lag: how late the last tick of the clock came; ``worstLag`` the latest of all.
    :ivar slow: how often one event held everybody up for more than 100 ms.
    :ivar startedAt: when it was made, in seconds since 1970.
    :ivar reloadedAt: when a configuration was last taken: at the start, or by a reload.
    :ivar reloaded: whether the last reload was taken, or there was none.
    """

    streams: Sequence[StreamMeasurements] = ()
    datagrams: Sequence[DatagramMeasurements] = ()
    lag: float = 0.0
    worstLag: float = 0.0
    slow: int = 0
    startedAt: float = 0.0
    reloadedAt: float = 0.0
    reloaded: bool = True
