"""
The metrics that there are, and what each is made of: `METRICS`.

Names and units are by Prometheus' conventions.  No label has a client's address: of those there are
too many.  `echod.admin.metrics` tells all this; docs/insight.md has the table, computed.
"""

from __future__ import annotations

import platform
import resource
import time
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import twisted

from echod import __version__
from echod.interfaces import ServerContext
from echod.measurements import (
    DatagramMeasurements,
    Distribution,
    Example,
    Measurements,
    StreamMeasurements,
)

__all__ = ["DATAGRAMS", "METRICS", "PROCESS", "STREAMS", "Metric", "Value"]

_PAGE = resource.getpagesize()


class Metric(NamedTuple):
    """
    A family of metrics.

    :ivar name: with ``_total``, where it is a counter.
    :ivar kind: ``counter``, ``gauge``, ``histogram`` or ``info``.
    :ivar labels: what tells its values apart.
    :ivar meaning: one sentence.
    """

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str

    @property
    def family(self) -> str:
        """The name without what its kind adds."""
        return self.name.removesuffix({"counter": "_total", "info": "_info"}.get(self.kind, ""))

    @property
    def unit(self) -> str:
        """``seconds`` or ``bytes``, or empty."""
        return next((each for each in ("seconds", "bytes") if self.family.endswith(f"_{each}")), "")


class Value(NamedTuple):
    """
    One of its values.

    :ivar value: a number, or those of a histogram.
    :ivar labels: values of its last labels; those before are the listener's.
    :ivar example: a connection that is one of those counted.
    """

    value: float | Distribution
    labels: tuple[str, ...] = ()
    example: Example | None = None


def _each(values: Mapping[str, float]) -> list[Value]:
    return [Value(value, (key,)) for key, value in values.items()]


def _ends(each: StreamMeasurements) -> list[Value]:
    return [Value(count, ends, each.last.get(ends)) for ends, count in each.closed.items()]


def _ofListener(name: str, kind: str, meaning: str, *labels: str) -> Metric:
    return Metric(name, kind, ("listener", "protocol", *labels), meaning)


#: Of a listener of connections.
STREAMS: list[tuple[Metric, Callable[[StreamMeasurements], Iterable[Value]]]] = [
    (
        _ofListener(
            "echod_connections_open",
            "gauge",
            "Connections that are not gone, by where they stand.",
            "state",
        ),
        lambda each: _each(each.open),
    ),
    (
        _ofListener("echod_connections_accepted_total", "counter", "Connections that came in."),
        lambda each: [Value(each.accepted)],
    ),
    (
        _ofListener(
            "echod_connections_refused_total",
            "counter",
            "Connections turned away, by reason.",
            "reason",
        ),
        lambda each: _each(each.refused),
    ),
    (
        _ofListener(
            "echod_connections_closed_total",
            "counter",
            "Connections that are gone, by reason and by how they ended: fin, rst (the peer's, or"
            " the network's) or abort (RST by echod).",
            *("reason", "end"),
        ),
        _ends,
    ),
    (
        _ofListener(
            "echod_connections_cut_total",
            "counter",
            "Connections that were still owed bytes when echod gave up.",
        ),
        lambda each: [Value(each.cut)],
    ),
    (
        _ofListener(
            "echod_received_bytes_total",
            "counter",
            "Bytes of payload that were read for the protocol.",
        ),
        lambda each: [Value(each.received)],
    ),
    (
        _ofListener(
            "echod_sent_bytes_total",
            "counter",
            "Bytes of payload that were handed over to be sent.",
        ),
        lambda each: [Value(each.sent)],
    ),
    (
        _ofListener(
            "echod_discarded_bytes_total",
            "counter",
            "Bytes that were read and thrown away after echod's own end.",
        ),
        lambda each: [Value(each.discarded)],
    ),
    (
        _ofListener(
            "echod_cut_bytes_total",
            "counter",
            "Bytes that peers were still owed when echod gave up.",
        ),
        lambda each: [Value(each.cutBytes)],
    ),
    (
        _ofListener(
            "echod_messages_total",
            "counter",
            "Whole messages that came in, where the protocol has messages.",
        ),
        lambda each: [Value(each.messages)],
    ),
    (
        _ofListener(
            "echod_messages_truncated_total",
            "counter",
            "Connections whose peer finished in the middle of a message.",
        ),
        lambda each: [Value(each.truncated)],
    ),
    (
        _ofListener(
            "echod_pauses_total",
            "counter",
            "How often reading stopped because a peer did not read.",
        ),
        lambda each: [Value(each.pauses)],
    ),
    (
        _ofListener(
            "echod_held_bytes",
            "gauge",
            "Bytes that echod holds for its peers now, outside of the kernel's buffers of sockets:"
            " what waits to be sent, and what is no whole message yet.",
        ),
        lambda each: [Value(each.held)],
    ),
    (
        _ofListener(
            "echod_connection_duration_seconds",
            "histogram",
            "How long connections lived that are gone.",
        ),
        lambda each: [Value(each.seconds)],
    ),
    (
        _ofListener(
            "echod_connection_received_bytes",
            "histogram",
            "How many bytes of payload came over connections that are gone.",
        ),
        lambda each: [Value(each.bytes)],
    ),
    (
        _ofListener(
            "echod_first_byte_seconds",
            "histogram",
            "Time from accepting connections that are gone to their first byte of payload; known"
            " of those that have a timeline.",
        ),
        lambda each: [Value(each.firstByte)],
    ),
    (
        _ofListener(
            "echod_certificate_not_after_timestamp_seconds",
            "gauge",
            "When a certificate expires, in seconds since 1970, by the name that clients ask for"
            " (SNI); the listener's own has none.",
            "name",
        ),
        lambda each: _each(each.certificates),
    ),
]
#: Of a listener of datagrams.
DATAGRAMS: list[tuple[Metric, Callable[[DatagramMeasurements], Iterable[Value]]]] = [
    (
        _ofListener(
            "echod_datagrams_received_total",
            "counter",
            "Datagrams that came, refused ones included.",
        ),
        lambda each: [Value(each.received)],
    ),
    (
        _ofListener("echod_datagrams_sent_total", "counter", "Datagrams that were sent."),
        lambda each: [Value(each.sent)],
    ),
    (
        _ofListener(
            "echod_datagrams_refused_total",
            "counter",
            "Datagrams that were not answered, by reason.",
            "reason",
        ),
        lambda each: _each(each.refused),
    ),
    (
        _ofListener(
            "echod_datagram_errors_total", "counter", "Errors of the socket, and of the protocol."
        ),
        lambda each: [Value(each.errors)],
    ),
    (
        _ofListener(
            "echod_datagram_received_bytes_total",
            "counter",
            "Bytes that were in datagrams that came.",
        ),
        lambda each: [Value(each.receivedBytes)],
    ),
    (
        _ofListener(
            "echod_datagram_sent_bytes_total",
            "counter",
            "Bytes that were in datagrams that were sent.",
        ),
        lambda each: [Value(each.sentBytes)],
    ),
]
#: Of the daemon as a whole.
PROCESS: list[tuple[Metric, Callable[[Measurements, ServerContext], Value]]] = [
    (
        Metric("echod_loop_lag_seconds", "gauge", (), "How late the last tick of the clock came."),
        lambda measured, _: Value(measured.lag),
    ),
    (
        Metric("echod_loop_lag_worst_seconds", "gauge", (), "The latest tick since the start."),
        lambda measured, _: Value(measured.worstLag),
    ),
    (
        Metric(
            "echod_slow_turns_total",
            "counter",
            (),
            "How often one event held everybody up for more than 100 ms.",
        ),
        lambda measured, _: Value(measured.slow),
    ),
    (
        Metric("echod_ready", "gauge", (), "Whether it is ready (1), as the protocol health says."),
        lambda _, context: Value(context.health == "ready"),
    ),
    (
        Metric("echod_draining", "gauge", (), "Whether it has been told to end (1)."),
        lambda _, context: Value(context.draining),
    ),
    (
        Metric(
            "echod_config_last_reload_successful",
            "gauge",
            (),
            "Whether the last reload was taken (1), or there was none.",
        ),
        lambda measured, _: Value(measured.reloaded),
    ),
    (
        Metric(
            "echod_config_last_reload_success_timestamp_seconds",
            "gauge",
            (),
            "When a configuration was last taken, at the start or by a reload, in seconds since"
            " 1970.",
        ),
        lambda measured, _: Value(measured.reloadedAt),
    ),
    (
        Metric(
            "echod_build_info",
            "info",
            ("version", "python", "twisted"),
            "Always 1: what runs is in the labels.",
        ),
        lambda *_: Value(1, (__version__, platform.python_version(), twisted.__version__)),
    ),
    (
        Metric(
            "process_start_time_seconds",
            "gauge",
            (),
            "When the server was made, in seconds since 1970.",
        ),
        lambda measured, _: Value(measured.startedAt),
    ),
    (
        Metric("process_cpu_seconds_total", "counter", (), "Processor time, of user and system."),
        lambda *_: Value(time.process_time()),
    ),
    (
        Metric(
            "process_resident_memory_bytes", "gauge", (), "Memory of the process that is resident."
        ),
        lambda *_: Value(_resident()),
    ),
]

#: All that there is, in the order in which it is told.
METRICS: list[Metric] = [
    *(metric for metric, _ in STREAMS),
    *(metric for metric, _ in DATAGRAMS),
    *(metric for metric, _ in PROCESS),
]


def _resident() -> int:
    """Bytes of memory that are resident (proc(5))."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * _PAGE
