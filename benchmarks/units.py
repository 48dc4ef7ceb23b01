"""Figures in SI units as people read them.  Pure."""

from __future__ import annotations

__all__ = ["axis", "number", "show", "size"]

_HEADINGS = {
    "cpu": "CPU a {unit}",
    "rate": "{unit}s a second",
    "p50": "median latency",
    "p99": "99th percentile",
    "alone50": "median alone",
    "alone99": "99th alone",
    "times": "median over median alone",
    "memory": "resident memory a connection",
    "sent": "sent by each client",
    "pipes": "in pipes, a connection",
}


def axis(metric: str, unit: str) -> str:
    """What a metric is called in a heading: ``CPU a message``."""
    return _HEADINGS[metric].format(unit=unit)


def number(value: float) -> str:
    """Three digits that count, without an exponent: ``0.0431``, ``4.31``, ``431``, ``4310``."""
    if value == 0:
        return "0"
    digits = 2
    size = abs(value)
    while size >= 9.995 and digits > 0:
        size /= 10
        digits -= 1
    while size < 0.9995 and digits < 6:
        size *= 10
        digits += 1
    return f"{value:.{digits}f}"


def size(value: int) -> str:
    """A size of whole KiB or MiB as people write it: ``64 KiB``; other sizes in bytes."""
    for name, each in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if value and value % each == 0:
            return f"{value // each} {name}"
    return f"{value} B"


def show(metric: str, unit: str, value: float) -> str:
    """A figure with its unit: ``4.31 µs``, ``1.2 GB/s``, ``131 KiB``."""
    if metric == "times":
        return f"{number(value)} ×"
    if metric in ("memory", "sent", "pipes"):
        for name in ("B", "KiB"):
            if abs(value) < 1024:
                return f"{number(value)} {name}"
            value /= 1024
        return f"{number(value)} MiB"
    if metric == "rate":
        if unit == "byte":
            return f"{number(value / 1e6)} MB/s"
        return f"{value:,.0f}".replace(",", "\N{NO-BREAK SPACE}")
    if metric == "cpu" and unit not in ("message", "connection", "handshake"):
        return f"{number(value * 1e9)} ns"
    if value >= 0.9995e-3 and metric != "cpu":
        return f"{number(value * 1e3)} ms"
    return f"{number(value * 1e6)} µs"
