"""Tests on the real reactor leave no timer, reader or writer behind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.loaded import loaded


@pytest.fixture(scope="session", autouse=True)
def loadedProcess() -> Iterator[None]:
    """Open the descriptors of `loaded` now, not within some test that counts them; and close."""
    process = loaded()
    yield
    process.close()


@pytest.fixture(autouse=True)
def noLeakedReactorState(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail the test for delayed calls and descriptors left in the reactor."""
    if "reactor" not in request.fixturenames:
        yield
        return
    reactor: Any = request.getfixturevalue("reactor")
    before = _state(reactor)
    yield
    left = _state(reactor) - before
    for call in reactor.getDelayedCalls():
        if call in left:
            call.cancel()
    assert left == set()


def _state(reactor: Any) -> set[Any]:
    return {*reactor.getDelayedCalls(), *reactor.getReaders(), *reactor.getWriters()}
