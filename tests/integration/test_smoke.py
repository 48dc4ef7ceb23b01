"""The daemon starts, echoes and stops."""

from __future__ import annotations

from tests.integration.daemon import MODULE, Daemon, exchange


def test_twistd() -> None:
    """`twistd -n echod --port 0` echoes, half-closes and exits 0."""
    with Daemon("--port", "0") as daemon:
        assert exchange(daemon.connect(), b"hello") == b"hello"
        assert daemon.stop() == 0


def test_module() -> None:
    """`python -m echod` does the same."""
    with Daemon("--port", "0", command=MODULE) as daemon:
        assert exchange(daemon.connect(), b"hello") == b"hello"
        assert daemon.stop() == 0
