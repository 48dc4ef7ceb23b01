"""`echod.admin.metrics`: what Prometheus reads, held against the library's own parsers."""

from __future__ import annotations

import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from twisted.internet.task import Clock

from echod.admin.metric_families import METRICS, Metric
from echod.admin.metrics import exposition
from echod.connection.states import ENDS, Reason
from echod.errors import EchodError
from echod.insight.histogram import Histogram
from echod.interfaces import ServerContext
from echod.measurements import Distribution, Example, Measurements, StreamMeasurements
from echod.server.counters import DATAGRAMS_REFUSED, REFUSED, STREAMS_REFUSED
from echod.server.distributions import BYTES, FIRST_BYTE, SECONDS
from echod.server.registry import discover
from echod.testing import PlainContext
from echod.testing.plain_context import PlainInsight
from tests.certificates import Certificates
from tests.unit.admin.reading import OPEN, families, samples, total
from tests.unit.outer import waitUntil
from tests.unit.reloading import Reloading, planOf

#: What Prometheus 3 asks for.
PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
#: Samples there may be of five listeners.
MOST = 735


@pytest.fixture
def served(tmp_path: Path, certificates: Certificates) -> Iterator[Reloading]:
    """Five listeners, two of them alike, that somebody observes."""
    server = Reloading()
    tls = {"tls": {"cert": certificates.server}}
    plan = planOf(
        discover(),
        ("raw", "tcp:0", {}),
        ("raw", "tcp:0", {}),
        ("line", "tcp:0", tls),
        ("dns", f"unix:{tmp_path}/a b.socket", {}),
        ("udp", "udp:0", {}),
    )
    server.startWith(msgspec.structs.replace(plan, insight=True))
    yield server
    server.stop()


def contextOf(server: Reloading) -> ServerContext:
    context: ServerContext = server.service._context
    return context


@pytest.mark.parametrize("accept", ["", OPEN])
def test_allThereIsAtTheStart(served: Reloading, accept: str) -> None:
    """Each documented series is there before anything has happened, at 0, with its labels."""
    context = contextOf(served)
    found = {family.name: family for family in families(context, accept)}
    text = not accept
    for metric in METRICS:
        # The parser of text calls what it does not know by its whole name.
        family = found.pop(metric.name if text and metric.kind == "info" else metric.family)
        assert family.documentation == metric.meaning
        assert family.type == ("gauge" if text and metric.kind == "info" else metric.kind)
        assert {frozenset(sample.labels) - {"le"} for sample in family.samples} == {
            frozenset(metric.labels)
        }
        if "protocol" in metric.labels and metric.kind != "gauge":
            assert {sample.value for sample in family.samples} == {0}
    assert found == {}
    every = samples(context, accept)
    assert len(every) <= MOST
    listeners = {dict(labels).get("listener", "") for _, labels in every} - {""}
    assert {name.split(" unix ")[0] for name in listeners} == {
        "raw tcp 127.0.0.1:0",
        "raw tcp 127.0.0.1:0 #2",
        "line tcp 127.0.0.1:0",
        "dns",
        "udp udp 127.0.0.1:0",
    }
    dns = {"protocol": "dns"}
    assert len([1 for name, labels in every if dns.items() <= labels]) == (
        sum(map(len, ENDS.values()))
        + len(STREAMS_REFUSED)
        # States, single ones, and histograms with +Inf, sum and count.
        + (6 + 10)
        + len([*SECONDS, *BYTES, *FIRST_BYTE])
        + 3 * 3
    )


@pytest.fixture
def spoken(served: Reloading) -> Iterator[Reloading]:
    """The same, after one that is gone, while one is open; and a datagram."""
    tcp, udp = [served.service.listeners[index].getHost().port for index in (0, 4)]
    with socket.create_connection(("127.0.0.1", tcp)) as client:
        assert served.echo(client, b"hello") == b"hello"
    waitUntil(served.loop.turn, lambda: not served.service.connectionCount())
    with socket.socket(type=socket.SOCK_DGRAM) as sender:
        sender.connect(("127.0.0.1", udp))
        assert served.echo(sender, b"datagram") == b"datagram"
    with socket.create_connection(("127.0.0.1", tcp)) as client:
        assert served.echo(client, b"hello") == b"hello"
        yield served


def test_whatHasHappened(spoken: Reloading) -> None:
    """Both formats say the same, and that is what the counters say."""
    context = contextOf(spoken)
    found = samples(context)
    moving = {"process_cpu_seconds_total", "process_resident_memory_bytes"}
    other = samples(context, OPEN)
    assert {key: value for key, value in found.items() if key[0] not in moving} == {
        key: value for key, value in other.items() if key[0] not in moving
    }
    here = {"listener": "raw tcp 127.0.0.1:0", "protocol": "raw"}
    assert total(found, "echod_connections_open", **here, state="open") == 1
    assert total(found, "echod_connections_accepted_total", **here) == 2
    assert total(found, "echod_connections_closed_total", **here, reason="eof", end="fin") == 1
    assert total(found, "echod_connections_closed_total") == 1
    for name in ("received", "sent"):
        assert total(found, f"echod_{name}_bytes_total", **here) == 10
        assert total(found, f"echod_datagrams_{name}_total", protocol="udp") == 1
        assert total(found, f"echod_datagram_{name}_bytes_total") == 8
    assert total(found, "echod_connection_duration_seconds_count", **here) == 1
    assert total(found, "echod_connection_received_bytes_sum", **here) == 5
    assert total(found, "echod_connection_received_bytes_bucket", **here, le="0.0") == 0
    assert total(found, "echod_connection_received_bytes_bucket", **here, le="16.0") == 1
    # It had a timeline, which knows.
    assert total(found, "echod_first_byte_seconds_count", **here) == 1
    certificate = total(found, "echod_certificate_not_after_timestamp_seconds", name="")
    (expiry,) = spoken.service.listeners[2].plan.expiries
    assert certificate == expiry.notAfter
    assert total(found, "echod_ready") == 1
    assert total(found, "echod_draining") == 0
    assert total(found, "echod_build_info") == 1
    started = total(found, "process_start_time_seconds")
    assert total(found, "echod_config_last_reload_success_timestamp_seconds") == started


def test_oneIsNamedAsAnExample(spoken: Reloading) -> None:
    """Where the format has examples, the connection of each size and end is named by its id."""
    (ended,) = contextOf(spoken).insight.closed()
    found = [
        (sample.name, sample.exemplar)
        for family in families(contextOf(spoken), OPEN)
        for sample in family.samples
        if sample.exemplar
    ]
    assert {name for name, _ in found} == {
        "echod_connections_closed_total",
        "echod_connection_duration_seconds_bucket",
        "echod_first_byte_seconds_bucket",
    }
    assert {exemplar.labels["connection_id"] for _, exemplar in found} == {ended["id"]}
    assert "connection_id" not in exposition(contextOf(spoken))[1].decode()


def test_noAddressOfAClient(spoken: Reloading) -> None:
    """What is in labels is bounded by what is configured."""
    text = exposition(contextOf(spoken), OPEN)[1].decode()
    assert set(re.findall(r"127\.0\.0\.1:\d+", text)) == {"127.0.0.1:0"}


def test_aReloadIsTold(served: Reloading) -> None:
    """A refusal until one succeeds; and the names of those that stay do."""
    context = contextOf(served)
    served.service.reloads.refuse("no")
    assert total(samples(context), "echod_config_last_reload_successful") == 0
    served.reload(("raw", "tcp:0", {"idle_timeout": 5}), ("line", "tcp:0", {}))
    found = samples(context)
    assert total(found, "echod_config_last_reload_successful") == 1
    listeners = {dict(labels)["listener"] for _, labels in found if dict(labels).get("listener")}
    assert {"raw tcp 127.0.0.1:0", "line tcp 127.0.0.1:0"} <= listeners


def test_draining() -> None:
    """It is not ready then, as the protocol ``health`` says."""
    found = samples(PlainContext(draining=True))
    assert (total(found, "echod_ready"), total(found, "echod_draining")) == (0, 1)


def nothing() -> Distribution:
    histogram = Histogram(())
    return Distribution(histogram.bounds, histogram.counts, histogram.sum, histogram.exemplars)  # type: ignore[arg-type]  # none


def streamOf(listener: str, **values: Any) -> StreamMeasurements:
    """A listener's, where nothing has happened but this."""
    plain: dict[str, Any] = dict.fromkeys(StreamMeasurements._fields, 0)
    plain |= {key: {} for key in ("open", "refused", "closed", "last", "certificates")}
    plain |= dict.fromkeys(("seconds", "bytes", "firstByte"), nothing())
    return StreamMeasurements(**{**plain, "listener": listener, "protocol": "raw", **values})


@pytest.mark.parametrize("accept", ["", OPEN])
@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb", "a\\nb", "ä🙂", "a}b,c=1", "", " # {} 1"])
def test_namesAreEscaped(name: str, accept: str) -> None:
    """Whatever is in a name comes out as it went in."""
    stream = streamOf(name, accepted=3, certificates={name: 5.0})
    context = PlainContext(insight=PlainInsight(measured=Measurements(streams=[stream])))
    found = samples(context, accept)
    assert total(found, "echod_connections_accepted_total", listener=name, protocol="raw") == 3
    expiry = total(found, "echod_certificate_not_after_timestamp_seconds", listener=name, name=name)
    assert expiry == 5


def test_whatIsNotInTheTableIsToldToo() -> None:
    """Sums hold whatever comes: an end that nobody has foreseen is not left out."""
    stream = streamOf(
        "here",
        closed={("eof", "fin"): 1, ("news", "rst"): 2},
        last={("news", "rst"): Example("abc-1", 0.25, 12.0)},
    )
    context = PlainContext(insight=PlainInsight(measured=Measurements(streams=[stream])))
    for accept in ("", OPEN):
        found = samples(context, accept)
        assert total(found, "echod_connections_closed_total", reason="news", end="rst") == 2
        assert total(found, "echod_connections_closed_total") == 3


@pytest.mark.parametrize(
    ("accept", "isOpen"),
    [
        ("", False),
        ("*/*", False),
        ("text/html,*/*", False),
        ("text/plain", False),
        (OPEN, True),
        (OPEN.upper(), True),
        ("application/openmetrics-text", True),
        (PROMETHEUS, True),
        ("application/openmetrics-text;version=0.0.1,text/plain;version=0.0.4;q=0.5,*/*", True),
        ("application/openmetrics-text;q=0.1,text/plain", False),
        ("application/openmetrics-text;q=0", False),
        # For these prometheus-client's own choice raises TypeError.
        ("application/openmetrics-text;version=x", False),
        ("application/openmetrics-text;version=1.0.0<script>", False),
        ("application/openmetrics-text;version=2.0.0", False),
        ("application/openmetrics-text;q=x", False),
        (";;,=;q", False),
    ],
)
def test_accept(accept: str, isOpen: bool) -> None:
    """RFC 9110 section 12.5.1, as far as two formats need it; text is what anybody gets."""
    kind, body = exposition(PlainContext(), accept)
    assert kind == (
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
        if isOpen
        else "text/plain; version=0.0.4; charset=utf-8"
    )
    assert body.endswith(b"# EOF\n") is isOpen


def test_withoutTheLibrary(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says how to have it."""
    monkeypatch.delitem(sys.modules, "echod.admin.prometheus", raising=False)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(EchodError, match=r"pip install 'twisted-echod\[metrics\]'$"):
        exposition(PlainContext())


def test_reasonsOfRefusals() -> None:
    """Each reason that is documented is one of connections, or of datagrams, or of both."""
    assert {*STREAMS_REFUSED, *DATAGRAMS_REFUSED} == {*REFUSED}


def test_eachReasonHasItsEnds() -> None:
    """The table has all reasons, and no end that there is not."""
    assert {*ENDS} == {*Reason}
    assert {end for ends in ENDS.values() for end in ends} == {"fin", "rst", "abort"}


CONVENTIONS = re.compile(r"^(echod|process)_[a-z]+(_[a-z]+)*$")


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_conventions(metric: Metric) -> None:
    """Prometheus' naming: ``_total`` of counters alone, base units, a sentence for each."""
    assert CONVENTIONS.match(metric.name)
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert metric.name.endswith("_info") == (metric.kind == "info")
    assert not re.search(r"_(ms|milliseconds|kb|kilobytes|count|sum|bucket)(_|$)", metric.name)
    assert metric.meaning[0].isupper()
    assert metric.meaning.endswith(".")
    assert not {"le", "peer", "address"} & {*metric.labels}


def test_aClockThatIsNotOurs() -> None:
    """A context needs no service."""
    assert samples(PlainContext(clock=Clock()))[("echod_slow_turns_total", frozenset())] == 0
