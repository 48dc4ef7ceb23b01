"""
What is measured of listeners, as `echod.measurements` has it: `measureStream`, `measureDatagrams`.

One look at each open connection: about a microsecond.  What is counted is `Totals`' business.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence

from echod.connection.connection import Connection
from echod.connection.states import ENDS, State
from echod.insight.histogram import Exemplar, Histogram
from echod.insight.identity import idOf
from echod.measurements import DatagramMeasurements, Distribution, Example, StreamMeasurements
from echod.server.counters import DATAGRAMS_REFUSED, STREAMS_REFUSED, Totals
from echod.server.distributions import Distributions
from echod.tls.facts import CertificateExpiry
from echod.transports.udp import UDPPort

__all__ = ["measureDatagrams", "measureStream"]

#: States that somebody who is not gone may be in; one that was aborted is gone a turn later.
_STATES = [state for state in State if state not in (State.NEW, State.CLOSED)]
_ENDINGS = [(reason.value, end) for reason, ends in ENDS.items() for end in ends]


def measureStream(
    listener: str,
    protocol: str,
    totals: Totals,
    live: Iterable[Connection],
    certificates: Sequence[CertificateExpiry],
) -> StreamMeasurements:
    """
    What there is of a listener of connections.

    :param listener: what it is called.
    :param live: its connections that are not gone.
    """
    open_: dict[State, int] = dict.fromkeys(_STATES, 0)
    connections = list(live)
    received, sent, discarded, messages, truncated, pauses = totals.sumsWith(connections)
    held = 0
    for connection in connections:
        open_[connection.state] += 1
        # A subclass of somebody else's may have written it.
        held += connection.attempt(connection.heldBytes, otherwise=0)
    # Inside, times are monotonic.
    began = time.time() - time.monotonic()
    found = totals.distributions or Distributions()
    closed = dict.fromkeys(_ENDINGS, 0)
    closed |= {(reason.value, end): count for (reason, end), count in totals.ends.items()}
    return StreamMeasurements(
        listener=listener,
        protocol=protocol,
        open={state.value: count for state, count in open_.items()},
        accepted=totals.accepted,
        refused=_withAll(STREAMS_REFUSED, totals.refused),
        closed=closed,
        last={
            (reason.value, end): _example(exemplar, began)
            for (reason, end), exemplar in totals.last.items()
        },
        received=received,
        sent=sent,
        discarded=discarded,
        cut=totals.cut,
        cutBytes=totals.cutBytes,
        messages=messages,
        truncated=truncated,
        pauses=pauses,
        held=held,
        seconds=_distribution(found.seconds, began),
        bytes=_distribution(found.received, began),
        firstByte=_distribution(found.firstByte, began),
        # The first to expire, where several have one name.
        certificates={
            each.name: each.notAfter
            for each in sorted(certificates, key=lambda one: one.notAfter, reverse=True)
        },
    )


def measureDatagrams(listener: str, protocol: str, port: UDPPort) -> DatagramMeasurements:
    """What there is of a listener of datagrams."""
    return DatagramMeasurements(
        listener=listener,
        protocol=protocol,
        received=port.received,
        sent=port.answered,
        receivedBytes=port.bytesIn,
        sentBytes=port.bytesOut,
        refused=_withAll(DATAGRAMS_REFUSED, port.refused),
        errors=port.errors.total(),
    )


def _withAll(reasons: Iterable[str], counts: Mapping[str, int]) -> dict[str, int]:
    """All reasons that there can be, also those that have never come to pass."""
    return {**dict.fromkeys(reasons, 0), **counts}


def _example(exemplar: Exemplar, began: float) -> Example:
    number, value, at = exemplar
    return Example(idOf(number), value, began + at)


def _distribution(histogram: Histogram, began: float) -> Distribution:
    return Distribution(
        histogram.bounds,
        [*histogram.counts],
        histogram.sum,
        [each and _example(each, began) for each in histogram.exemplars],
    )
