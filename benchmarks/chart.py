"""The picture: an SVG of bars for each row and lines for the growth, written by hand.  Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from benchmarks.figures import RowResult, spread
from benchmarks.rows import ECHOD, PEERS, Along, Row
from benchmarks.units import axis, show, size

__all__ = ["chart"]

_WIDTH = 860
_LEFT = 220
_BARS = 430
_BAR = 20
_OWN = "#c2410c"
_OTHERS = "#94a3b8"
_INK = "#1e293b"
_LINES = (_OWN, "#475569", "#0369a1", "#15803d", "#7e22ce", "#a16207", "#be185d")


@dataclass(frozen=True)
class _Family:
    """
    Rows that become one panel of curves.

    :ivar along: which figure of theirs is the horizontal axis; ``over``: how its heading says it.
    """

    along: Along
    title: str
    over: str

    def of(self, row: Row) -> int:
        """Where on the horizontal axis a row is."""
        return row.connections if self.along == "connections" else row.message

    def label(self, value: int) -> str:
        """What stands below the axis there."""
        return str(value) if self.along == "connections" else size(value)


_FAMILIES = (
    _Family("message", "raw, 50 connections, one message in flight: bulk by size", "message size"),
    _Family("connections", "raw, 64 B ping-pong: how cost grows", "connections"),
)


def _text(x: float, y: float, words: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}"{more}>{escape(words)}</text>'


def _bar(y: float, width: float, colour: str) -> str:
    height = _BAR - 4
    return f'<rect x="{_LEFT}" y="{y:.1f}" width="{width:.1f}" height="{height}" fill="{colour}"/>'


def _line(path: str, colour: str, width: int = 1) -> str:
    return f'<path d="{path}" stroke="{colour}" stroke-width="{width}" fill="none"/>'


def _plain(title: str) -> str:
    """A title without Markdown."""
    return title.replace("**", "").replace("`", "")


def chart(results: Sequence[RowResult]) -> str:
    """
    A whole SVG document.

    A bar is the median of a row's first metric, a thin line its least and greatest.  Rows that
    have an axis (`Row.along`) become one panel for each axis, CPU time over it, both logarithmic.
    """
    parts: list[str] = []
    y = 20.0
    for result in results:
        if not result.row.along and result.samples:
            panel, y = _bars(result, y)
            parts += panel
    for family in _FAMILIES:
        members = [one for one in results if one.row.along == family.along and one.samples]
        if members:
            panel, y = _curve(family, members, y)
            parts += panel
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y:.0f}"'
        f' width="{_WIDTH}" height="{y:.0f}" font-family="sans-serif" font-size="13"'
        f' fill="{_INK}">'
    )
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *parts, "</svg>\n"])


def _bars(result: RowResult, y: float) -> tuple[list[str], float]:
    row = result.row
    metric = row.metrics[0]
    spreads = {
        peer: spread([sample[metric] for sample in samples])
        for peer, samples in result.samples.items()
    }
    order = sorted(spreads, key=lambda peer: spreads[peer].median)
    # Bars end at thrice the median of all: one slow server must not flatten the others.
    middle = spreads[order[len(order) // 2]].median
    longest = min(max(one.greatest for one in spreads.values()), 3 * middle) or 1.0
    parts = [_text(20, y + 14, row.title, ' font-weight="bold"')]
    parts.append(_text(20, y + 32, f"{axis(metric, row.unit)}, smaller is better"))
    y += 42
    for peer in order:
        one = spreads[peer]

        def x(value: float) -> float:
            return _LEFT + _BARS * max(0.0, min(value / longest, 1.0))

        colour = _OWN if peer == ECHOD else _OTHERS
        weight = ' font-weight="bold"' if peer == ECHOD else ""
        centre = y + _BAR / 2
        parts += [
            _text(_LEFT - 8, centre + 5, _plain(PEERS[peer].title), f' text-anchor="end"{weight}'),
            _bar(y + 2, x(one.median) - _LEFT, colour),
            _line(f"M{x(one.least):.1f} {centre:.1f}H{x(one.greatest):.1f}", _INK),
        ]
        cut = " (cut)" if one.median > longest else ""
        label = show(metric, row.unit, one.median) + cut
        parts.append(_text(_LEFT + _BARS + 12, centre + 5, label, weight))
        y += _BAR
    return parts, y + 24


def _curve(family: _Family, results: Sequence[RowResult], y: float) -> tuple[list[str], float]:
    unit = results[0].row.unit
    peers = [peer for peer in results[0].row.peers if any(peer in one.samples for one in results)]
    points = {
        peer: [
            (family.of(one.row), spread([s["cpu"] for s in one.samples[peer]]).median)
            for one in results
            if peer in one.samples
        ]
        for peer in peers
    }
    figures = [figure for curve in points.values() for _, figure in curve]
    low, high = min(figures) / 1.2, max(figures) * 1.2
    places = [family.of(result.row) for result in results]
    least, most = min(places), max(places)
    top = y + 42
    # Room for the names and for the figures of all beside it.
    height = max(260.0, 40.0 * len(peers) + 20)

    def x(place: float) -> float:
        if least == most:
            return _LEFT + _BARS / 2
        return _LEFT + _BARS * math.log(place / least) / math.log(most / least)

    def height_(figure: float) -> float:
        return top + height * (1 - math.log(figure / low) / math.log(high / low))

    parts = [
        _text(20, y + 14, family.title, ' font-weight="bold"'),
        _text(20, y + 32, f"{axis('cpu', unit)} over {family.over}, both logarithmic"),
        _line(f"M{_LEFT} {top:.1f}V{top + height:.1f}H{_LEFT + _BARS}", _INK),
    ]
    free = 0.0
    for place in sorted(places):
        if x(place) < free:
            continue
        free = x(place) + 48
        parts.append(
            _text(x(place), top + height + 18, family.label(place), ' text-anchor="middle"')
        )
    for index, peer in enumerate(peers):
        colour = _LINES[index % len(_LINES)]
        path = "L".join(f"{x(count):.1f} {height_(figure):.1f}" for count, figure in points[peer])
        parts.append(_line(f"M{path}", colour, 2))
        for count, figure in points[peer]:
            parts.append(
                f'<circle cx="{x(count):.1f}" cy="{height_(figure):.1f}" r="3" fill="{colour}">'
                f"<title>{family.label(count)}: {escape(show('cpu', unit, figure))}</title>"
                "</circle>"
            )
        name = _text(_LEFT + _BARS + 20, top + 16 + 20 * index, _plain(PEERS[peer].title))
        parts.append(name.replace("<text ", f'<text fill="{colour}" font-weight="bold" '))
        first, last = points[peer][0], points[peer][-1]
        words = f"{show('cpu', unit, first[1])} … {show('cpu', unit, last[1])}"
        parts.append(
            _text(
                _LEFT + _BARS + 20,
                top + height - 20 * (len(peers) - index) + 16,
                words,
                f' fill="{colour}"',
            )
        )
    return parts, top + height + 40
