"""Metrics, read by the parsers of prometheus-client: `samples`."""

from __future__ import annotations

from typing import Any

import pytest

from echod.admin.metrics import exposition
from echod.interfaces import ServerContext

parser = pytest.importorskip("prometheus_client.parser", reason="needs prometheus-client")
openmetrics = pytest.importorskip("prometheus_client.openmetrics.parser")

#: To be given OpenMetrics.
OPEN = "application/openmetrics-text;version=1.0.0"

#: A value, by the name of its sample and by its labels.
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def families(context: ServerContext, accept: str = "") -> list[Any]:
    """All families, as the parser of the format reads them."""
    kind, body = exposition(context, accept)
    if kind.startswith("application/openmetrics-text; version=1.0.0"):
        return list(openmetrics.text_string_to_metric_families(body.decode()))
    assert kind.startswith("text/plain; version=0.0.4")
    return list(parser.text_string_to_metric_families(body.decode()))


def samples(context: ServerContext, accept: str = "") -> Samples:
    """All values; each is there once."""
    found: Samples = {}
    for family in families(context, accept):
        for sample in family.samples:
            key = sample.name, frozenset(sample.labels.items())
            assert key not in found, key
            found[key] = sample.value
    return found


def total(found: Samples, name: str, /, **labels: str) -> float:
    """The sum of those with this name and these labels."""
    wanted = labels.items()
    return sum(value for (of, having), value in found.items() if of == name and wanted <= having)
