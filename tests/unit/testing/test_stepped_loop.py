"""`echod.testing.stepped_loop`: a descriptor that misbehaves ends alone, as in a reactor."""

from __future__ import annotations

from typing import Any

from echod.testing.memory_socket import MemorySocket
from echod.testing.stepped_loop import Loop
from tests.conftest import LoggedErrors


class Descriptor:
    """Ready at once, and notes what it is told."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.socket, self.other = MemorySocket.pair(100, 100)
        self.other.send(b"x")
        self.fault = fault
        self.calls: list[Any] = []

    def doRead(self) -> None:
        self.calls.append("read")
        if self.fault is not None:
            raise self.fault
        self.socket.recv(100)

    def doWrite(self) -> None:
        self.calls.append("write")

    def connectionLost(self, reason: Any) -> None:
        self.calls.append(reason.value)


def test_oneThatRaises(loggedErrors: LoggedErrors) -> None:
    """It is told so and left out; the others are served, and it is no longer."""
    loop = Loop()
    fault = KeyError("mine")
    broken, fine = Descriptor(fault), Descriptor()
    for descriptor in (broken, fine):
        loop.addReader(descriptor)  # type: ignore[arg-type]  # as much as is asked of one
        loop.addWriter(descriptor)  # type: ignore[arg-type]  # the same
    assert loop.turn()
    assert broken.calls == ["read", fault]
    assert fine.calls == ["read", "write"]
    assert loop.getReaders() == loop.getWriters() == [fine]
    (told,) = loggedErrors.flush()
    assert "a descriptor raised" in told


def test_removeAll() -> None:
    """Who was there is handed over, once each, and nobody is left."""
    loop = Loop()
    both, writer = Descriptor(), Descriptor()
    loop.addReader(both)  # type: ignore[arg-type]  # as much as is asked of one
    loop.addWriter(both)  # type: ignore[arg-type]  # the same
    loop.addWriter(writer)  # type: ignore[arg-type]  # the same
    assert loop.removeAll() == [both, writer]
    assert loop.getReaders() == loop.getWriters() == []
    assert not loop.turn()


def test_cancelledByAnother() -> None:
    """A call that one due before it has cancelled is not made."""
    loop = Loop()
    made: list[str] = []
    second: Any = None

    def first() -> None:
        made.append("first")
        second.cancel()

    loop.callLater(0, first)
    second = loop.callLater(0, made.append, "second")
    assert loop.turn()
    assert made == ["first"]
