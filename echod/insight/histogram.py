"""
How values are distributed: `Histogram`, and an example of each size, `Exemplar`.

Plain counts, as Prometheus has them.  To take in a value costs a fifth of a microsecond, so it is
done where a connection ends and not where bytes pass.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

__all__ = ["Exemplar", "Histogram"]

#: A connection that is an example of a value: its number (`echod.insight.identity`), the value, and
#: when it came, in monotonic seconds.
Exemplar = tuple[int, float, float]


class Histogram:
    """
    How many values there were of each size.

    :param bounds: the greatest value of each bucket, in order; what is greater has one more.
    :ivar bounds: these.
    :ivar counts: values in each bucket, the last one's included.
    :ivar sum: of all values.
    :ivar exemplars: the last example in each bucket, if there was one; whoever has it puts it in.
    """

    __slots__ = ("bounds", "counts", "exemplars", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum: float = 0
        self.exemplars: list[Exemplar | None] = [None] * len(self.counts)

    def addMany(self, values: Sequence[float]) -> None:
        """Take in many values, which is cheaper than one by one."""
        ordered = sorted(values)
        before = 0
        for bucket, bound in enumerate(self.bounds):
            upTo = bisect_right(ordered, bound, before)
            self.counts[bucket] += upTo - before
            before = upTo
        self.counts[-1] += len(ordered) - before
        self.sum += sum(ordered)

    def add(self, value: float) -> int:
        """Take in one value; returns its bucket, as an index."""
        bucket = bisect_left(self.bounds, value)
        self.counts[bucket] += 1
        self.sum += value
        return bucket
