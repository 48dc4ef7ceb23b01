"""Errors of the kernel that pass, put in at the seam: `echod.testing.MemorySocket.faults`."""

from __future__ import annotations

import errno
import random
from typing import Any

import pytest

from echod.connection.states import Reason, State
from echod.protocols.raw import RawOptions, raw
from echod.testing import memoryLink


@pytest.mark.parametrize("code", [errno.ENOBUFS, errno.ENOMEM], ids=errno.errorcode.get)
@pytest.mark.parametrize("call", ["recv", "recv_into", "send"])
@pytest.mark.parametrize("word", ["", "never"], ids=["unseen", "seen"])
@pytest.mark.parametrize("size", [100, 300_000])
def test_errorsThatPass(code: int, call: str, word: str, size: int) -> None:
    """Whatever the kernel lacks for a moment costs time, and not one byte."""
    data = random.Random(size).randbytes(size)
    link = memoryLink(raw.makeFactory(RawOptions(quit=word)).buildProtocol(None))  # type: ignore[arg-type]  # no address
    skt: Any = link.connection.transport.socket  # type: ignore[attr-defined]  # an imitated one
    view = memoryview(data)
    got = b""
    while view:
        skt.faults[call] = [code] * 3
        view = view[link.send(view) :]
        link.pump()
        got += link.receive() or b""
    link.finish()
    skt.faults[call] = [code] * 3
    assert got + link.readAll() == data
    assert link.gone
    assert link.connection.reason is Reason.EOF


def test_errorsThatStay() -> None:
    """Any other error ends the connection, and it alone."""
    link = memoryLink(raw.makeFactory(RawOptions(quit="never")).buildProtocol(None))  # type: ignore[arg-type]  # no address
    skt: Any = link.connection.transport.socket  # type: ignore[attr-defined]  # an imitated one
    skt.faults = {"recv": [errno.EIO]}
    link.send(b"x")
    link.pump()
    assert link.gone
    assert link.connection.reason is Reason.RESET


def test_takenOutOnce() -> None:
    """What was echoed in place and cannot be taken out of the queue is not sent twice."""
    link = memoryLink(raw.makeFactory(RawOptions(in_place=True)).buildProtocol(None))  # type: ignore[arg-type]  # no address
    skt: Any = link.connection.transport.socket  # type: ignore[attr-defined]  # an imitated one
    got = b""
    for _ in range(20):
        link.send(bytes(60_000))
        link.pump()
        got += link.receive(1 << 20) or b""
    skt.faults["MSG_TRUNC"] = [errno.ENOMEM]
    link.send(bytes(60_000))
    link.pump()
    assert skt.faults == {"MSG_TRUNC": []}
    assert link.gone
    assert link.connection.state is State.CLOSED
