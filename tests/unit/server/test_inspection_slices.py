"""`echod.server.inspection`: a long list is looked for a few connections at a time."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from echod.errors import UnknownWord
from tests.unit.outer import waitUntil
from tests.unit.reloading import Reloading

COUNT = 200


@pytest.fixture
def served() -> Iterator[Reloading]:
    """With some connections, each with a byte more than the one before."""
    served = Reloading()
    served.start(("raw", "tcp:0", {}), ("admin", "tcp:0", {}))
    with ExitStack() as stack:
        address = served.service.listeners[0].getHost()
        for number in range(COUNT):
            client = stack.enter_context(socket.create_connection((address.host, address.port)))
            client.sendall(bytes(number + 1))
        waitUntil(served.loop.turn, lambda: served.service.connectionCount() == COUNT)
        yield served
    served.stop()


@pytest.mark.parametrize("sort", ["age", "bytes", "idle", "pending"])
def test_slices(served: Reloading, sort: str) -> None:
    """Nobody is looked at before a row is asked for, and then no more than 64 in one go."""
    found = list(served.service.insight.connections(sort=sort))
    rows = [row for row in found if row]
    assert len(rows) == COUNT
    assert found[: COUNT // 64] == [{}] * (COUNT // 64)
    if sort == "bytes":
        assert [row["bytes_in"] for row in rows] == sorted(
            (row["bytes_in"] for row in rows), reverse=True
        )
    if sort == "pending":
        pending = [row["unsent"] + row["unread"] for row in rows]
        assert pending == sorted(pending, reverse=True)
    with pytest.raises(UnknownWord):
        served.service.insight.connections(sort="x")


def test_whoIsGone(served: Reloading) -> None:
    """Who ends meanwhile is left out."""
    rows = served.service.insight.connections()
    assert next(rows) == {}
    for listener in served.service.listeners:
        listener.cut()
    assert list(filter(None, rows)) == []
