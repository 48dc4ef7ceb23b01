"""
A pytest fixture for `echod.testing.running`, once ``conftest.py`` names this module::

    pytest_plugins = ["echod.testing.pytest_plugin"]

    def test_myClient(echod):
        echo = echod("line", prefix="Echo: ")
        socket.create_connection((echo.host, echo.port))
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from echod.testing.running import Running, running

__all__ = ["echod"]


@pytest.fixture
def echod() -> Iterator[Callable[..., Running]]:
    """Start a listener, with the parameters of `running`; all of them end with the test."""
    with ExitStack() as stack:
        yield lambda *arguments, **keywords: stack.enter_context(running(*arguments, **keywords))
