"""
Figures out of samples: medians, spreads, ratios and verdicts.  Pure.

A ratio is made within one repetition, of two servers measured seconds apart, and the median of
those is judged: what slows the whole machine for a while slows both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations_with_replacement
from statistics import median

from benchmarks.rows import ECHOD, Row, Target

__all__ = [
    "Estimate",
    "RowResult",
    "Sample",
    "Spread",
    "Verdict",
    "estimate",
    "judge",
    "ratios",
    "spread",
    "verdicts",
]

#: One repetition's figures by metric, in SI units; see `Row.metrics`.
Sample = Mapping[str, float]


@dataclass(frozen=True)
class Spread:
    """A median, and the least and the greatest of what it is the median of."""

    median: float
    least: float
    greatest: float


@dataclass
class RowResult:
    """
    What came out of one row.

    :ivar samples: by peer, one for each repetition.
    :ivar failures: by peer, why it has no samples.
    """

    row: Row
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """
    A target and what was reached.

    :ivar measured: the ratio, or the figure itself; ``None`` if there is none.
    :ivar word: ``goal``, ``met``, ``missed`` or ``not measured``.
    :ivar without: peers that it should have been compared with as well.
    """

    target: Target
    measured: Spread | None
    word: str
    without: tuple[str, ...] = ()


def spread(values: Sequence[float]) -> Spread:
    """
    The median and the range.

    :raises ValueError: if there are no values.
    """
    if not values:
        raise ValueError("no values")
    return Spread(median(values), min(values), max(values))


def ratios(target: Target, samples: Mapping[str, Sequence[Sample]]) -> list[float]:
    """
    For each repetition, echod's figure over the best of the peers', or echod's alone.

    Peers without samples are passed over; the list is empty if nothing is left, or without echod.
    """
    own = [sample[target.metric] for sample in samples.get(ECHOD, ())]
    if not target.against:
        return own
    rivals = [samples[peer] for peer in target.against if samples.get(peer)]
    if not rivals:
        return []
    best = max if target.larger else min
    return [
        figure / best(sample[target.metric] for sample in repetition)
        for figure, *repetition in zip(own, *rivals, strict=False)
        if all(sample[target.metric] > 0 for sample in repetition)
    ]


def judge(target: Target, samples: Mapping[str, Sequence[Sample]]) -> Verdict:
    """Hold what was measured against a target."""
    without = tuple(peer for peer in target.against if not samples.get(peer))
    values = ratios(target, samples)
    if not values:
        return Verdict(target, None, "not measured", without)
    measured = spread(values)

    def reaches(bound: float) -> bool:
        return measured.median >= bound if target.larger else measured.median <= bound

    word = "met" if reaches(target.must) else "missed"
    if target.goal is not None and reaches(target.goal):
        word = "goal"
    return Verdict(target, measured, word, without)


def verdicts(result: RowResult) -> list[Verdict]:
    """One for each target of the row."""
    return [judge(target, result.samples) for target in result.row.targets]


@dataclass(frozen=True)
class Estimate:
    """
    What the true ratio probably is.

    :ivar lower: it is at least this with 95 % confidence; ``upper``: at most this.
    """

    ratio: float
    lower: float
    upper: float


def estimate(pairs: Sequence[float], risk: float = 0.05) -> Estimate:
    """
    The ratio behind many ratios, each of one pair of measurements.

    The estimate is that of Hodges and Lehmann (1963): the median of the means of all pairs of
    values, each value with itself too, here of their logarithms.  The bounds are those of
    Wilcoxon's signed-rank test: exact, without random numbers, for any distribution that is
    symmetric; the logarithm of a ratio of two figures of the same kind is.  One bad value of
    twenty hardly moves it.

    :param risk: how often each bound is wrong by itself.
    :returns: bounds of 0 and infinity where there are too few values for any (four, at 0.05).
    :raises ValueError: if there are no values.
    """
    if not pairs:
        raise ValueError("no values")
    logarithms = [math.log(one) for one in pairs]
    means = sorted((a + b) / 2 for a, b in combinations_with_replacement(logarithms, 2))
    outside = _signedRank(len(pairs), risk)
    if not outside:
        return Estimate(math.exp(median(means)), 0.0, math.inf)
    return Estimate(
        math.exp(median(means)), math.exp(means[outside - 1]), math.exp(means[-outside])
    )


def _signedRank(count: int, risk: float) -> int:
    """How many sums of signed ranks of so many values are, together, at most that probable."""
    # By sum, how many of the 2**count choices of signs have it.
    ways = [1]
    for rank in range(1, count + 1):
        ways = [
            (ways[total] if total < len(ways) else 0) + (ways[total - rank] if total >= rank else 0)
            for total in range(len(ways) + rank)
        ]
    together, sums = 0, 0
    for number in ways:
        together += number
        if together > risk * 2**count:
            break
        sums += 1
    return sums
