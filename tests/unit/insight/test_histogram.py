"""`echod.insight.histogram`: how values are distributed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from echod.insight.histogram import Histogram


def test_aBoundIsInItsBucket() -> None:
    """Prometheus' ``le`` is "less or equal"."""
    histogram = Histogram((1, 4))
    buckets = [histogram.add(value) for value in (0, 1, 1.5, 4, 4.5, 1e9)]
    assert buckets == [0, 0, 1, 1, 2, 2]
    assert histogram.counts == [2, 2, 2]
    assert histogram.sum == 11 + 1e9
    assert histogram.exemplars == [None, None, None]


@given(
    bounds=st.lists(st.integers(-5, 100), unique=True, max_size=8).map(sorted),
    values=st.lists(st.integers(-10, 110), max_size=30),
)
def test_eachValueIsCountedOnce(bounds: list[int], values: list[int]) -> None:
    """As counted by hand, up to each bound."""
    histogram = Histogram(bounds)
    for value in values:
        histogram.add(value)
    for index, bound in enumerate(bounds):
        assert sum(histogram.counts[: index + 1]) == sum(value <= bound for value in values)
    assert sum(histogram.counts) == len(values)
    assert histogram.sum == sum(values)


@given(st.lists(st.integers(0, 20), unique=True), st.lists(st.integers(-5, 30)))
def test_manyAtATime(bounds: list[int], values: list[int]) -> None:
    """Many at a time are counted as one by one."""
    one, many = Histogram(sorted(bounds)), Histogram(sorted(bounds))
    for value in values:
        one.add(value)
    many.addMany(values)
    assert (many.counts, many.sum) == (one.counts, one.sum)
