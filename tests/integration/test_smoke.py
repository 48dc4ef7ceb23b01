"""The daemon starts, echoes and stops."""

from __future__ import annotations

import pytest

from tests.integration.daemon import MODULE, Daemon, exchange


def test_twistd() -> None:
    """`twistd -n echod --port 0` echoes, half-closes and exits 0."""
    with Daemon("--port", "0") as daemon:
        assert exchange(daemon.connect(), b"hello") == b"hello"
        assert daemon.stop() == 0


@pytest.mark.parametrize("words", [[], ["serve"]], ids=["no word", "serve"])
def test_module(words: list[str]) -> None:
    """`python -m echod` does the same, and so does `echod serve`."""
    with Daemon("--port", "0", command=[*MODULE, *words]) as daemon:
        assert exchange(daemon.connect(), b"hello") == b"hello"
        assert daemon.stop() == 0
