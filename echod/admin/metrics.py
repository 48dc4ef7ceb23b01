"""
What is measured, as Prometheus reads it: `exposition`.

Text 0.0.4, or OpenMetrics 1.0 where a client asks for it: there connections are named, as examples
of how they end and how long they live.  `echod.admin.metric_families` has what there is, and
`echod.admin.prometheus` writes it, with prometheus-client.

Which format a client is given is decided here: the library's ``choose_encoder`` raises for a
version that is no number, and looks at no ``q``.
"""

from __future__ import annotations

from echod.errors import EchodError
from echod.interfaces import ServerContext

__all__ = ["exposition"]

_OPEN_METRICS = "application/openmetrics-text"
_TEXT = "text/plain"
#: Versions of OpenMetrics in which what is said here is the same.
_VERSIONS = ("", "0.0.1", "1.0.0")


def exposition(context: ServerContext, accept: str = "") -> tuple[str, bytes]:
    """
    What is measured now.

    Five listeners take 5 to 8 ms of processor time, and 16 the first time, for the library.

    :param accept: the client's ``Accept``.
    :returns: the type of the content, and the content.
    :raises EchodError: prometheus-client is not installed.
    """
    try:
        from echod.admin.prometheus import openMetrics, plainText
    except ImportError as error:
        raise EchodError(
            "metrics need prometheus-client: pip install 'twisted-echod[metrics]'"
        ) from error

    return openMetrics(context) if _wantsOpenMetrics(accept) else plainText(context)


def _wantsOpenMetrics(accept: str) -> bool:
    """Whether OpenMetrics is wanted, and not less than text (RFC 9110 section 12.5.1)."""
    wanted = dict.fromkeys((_OPEN_METRICS, _TEXT), 0.0)
    for entry in accept.lower().split(","):
        kind, *parameters = (part.strip() for part in entry.split(";"))
        given = dict(parameter.partition("=")[::2] for parameter in parameters)
        if kind in wanted and (kind == _TEXT or given.get("version", "") in _VERSIONS):
            wanted[kind] = max(wanted[kind], _quality(given.get("q", "1")))
    return wanted[_OPEN_METRICS] > 0 and wanted[_OPEN_METRICS] >= wanted[_TEXT]


def _quality(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        return 0.0
