"""
What is measured as prometheus-client has it, and as text: `openMetrics`, `plainText`.

The one module that needs that library, which `echod.admin.metrics` loads with the first question.
Nothing else of it is used: no thread, no metrics of its own, no registry of the process.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import inf

from prometheus_client import exposition
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.samples import Exemplar, Sample
from prometheus_client.utils import floatToGoString

from echod.admin.metric_families import DATAGRAMS, PROCESS, STREAMS, Metric, Value
from echod.interfaces import ServerContext
from echod.measurements import Distribution, Example

__all__ = ["openMetrics", "plainText"]


def plainText(context: ServerContext) -> tuple[str, bytes]:
    """Text 0.0.4: the type of the content, and the content."""
    text: bytes = exposition.generate_latest(_Collector(context))  # type: ignore[arg-type, unused-ignore]  # it asks for no more
    return exposition.CONTENT_TYPE_PLAIN_0_0_4, text


def openMetrics(context: ServerContext) -> tuple[str, bytes]:
    """
    The same as OpenMetrics 1.0, with examples.

    Names are plain, so nothing is escaped in them; not to look letter by letter is a fifth cheaper.
    """
    text: bytes = openmetrics.generate_latest(_Collector(context), openmetrics.ALLOWUTF8)
    return openmetrics.CONTENT_TYPE_LATEST, text


class _Collector:
    """What the library asks: it has ``collect``, as a registry has."""

    def __init__(self, context: ServerContext) -> None:
        self._context = context

    def collect(self) -> Iterator[Family]:
        measured = self._context.insight.measurements()
        for metric, ofStream in STREAMS:
            values = [
                ((each.listener, each.protocol, *value.labels), value)
                for each in measured.streams
                for value in ofStream(each)
            ]
            yield _family(metric, values)
        for metric, ofDatagrams in DATAGRAMS:
            values = [
                ((each.listener, each.protocol, *value.labels), value)
                for each in measured.datagrams
                for value in ofDatagrams(each)
            ]
            yield _family(metric, values)
        for metric, ofProcess in PROCESS:
            found = ofProcess(measured, self._context)
            yield _family(metric, [(found.labels, found)])


def _family(metric: Metric, values: Iterable[tuple[tuple[str, ...], Value]]) -> Family:
    """A family of the library's, with all of its values."""
    name, names = metric.name, metric.labels
    family = Family(metric.family, metric.meaning, metric.kind, metric.unit)
    for labels, (value, _, example) in values:
        found = dict(zip(names, labels, strict=True))
        if isinstance(value, Distribution):
            family.samples += _buckets(name, found, value)
        else:
            family.samples.append(Sample(name, found, value, None, _exemplar(example)))
    return family


def _buckets(name: str, labels: dict[str, str], found: Distribution) -> list[Sample]:
    samples, count = [], 0
    for bound, inside, example in zip(
        (*found.bounds, inf), found.counts, found.examples, strict=True
    ):
        count += inside
        bucket = {**labels, "le": floatToGoString(bound)}
        samples.append(Sample(f"{name}_bucket", bucket, count, None, _exemplar(example)))
    samples.append(Sample(f"{name}_count", labels, count))
    samples.append(Sample(f"{name}_sum", labels, found.sum))
    return samples


def _exemplar(example: Example | None) -> Exemplar | None:
    if example is None:
        return None
    return Exemplar({"connection_id": example.id}, example.value, round(example.at, 3))
