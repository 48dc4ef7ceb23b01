"""echod's conformance kit, and the protocol over TCP."""

from __future__ import annotations

import socket

import pytest
from echod_rot13 import TABLE, Options, rot13, rot13_lines, rot13_twisted

from echod.interfaces import IStreamProtocolMaker
from echod.testing import checkProtocol, running

LINES = b"Hello, world!\r\nGoodbye\n\n"


def _lines(data: bytes) -> bytes:
    """What comes back for whole lines; an unfinished one is not answered."""
    return data[: data.rfind(b"\n") + 1].translate(TABLE)


@pytest.mark.parametrize("maker", [rot13, rot13_twisted], ids=lambda maker: str(maker.name))
def test_conforms(maker: IStreamProtocolMaker) -> None:
    checkProtocol(maker, answer=lambda data: data.translate(TABLE))


def test_linesConform() -> None:
    checkProtocol(rot13_lines, sample=LINES, answer=_lines)


def test_prefix() -> None:
    answer = b"> Uryyb, jbeyq!\r\n> Tbbqolr\n> \n"
    checkProtocol(rot13_lines, Options(prefix="> "), sample=LINES, answer=answer)


def test_overTCP() -> None:
    with running("rot13") as echo, socket.create_connection((echo.host, echo.port)) as client:
        client.sendall(b"uryyb")
        client.shutdown(socket.SHUT_WR)
        assert client.makefile("rb").read() == b"hello"
        assert echo.counters()["bytes_in"] == 5
