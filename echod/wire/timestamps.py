"""Times as JSON and logs have them: `rfc3339`."""

from __future__ import annotations

from datetime import UTC, datetime

__all__ = ["rfc3339"]


def rfc3339(at: float) -> str:
    """Seconds since 1970 as ``2026-11-28T21:00:00.123Z``."""
    text = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")
