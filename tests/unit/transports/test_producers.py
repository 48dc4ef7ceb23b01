"""Producers of others on echod's transports: ``IConsumer``, as Twisted's own transports do it."""

from __future__ import annotations

import io
import random
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import tcp
from twisted.internet.interfaces import IPullProducer
from twisted.internet.protocol import ClientFactory, Factory, Protocol
from twisted.protocols.basic import FileSender
from zope.interface import implementer

from echod.config.tls_settings import TLSSettings
from echod.kit.makers import FactoryMaker
from echod.tls.context import ServerTLS
from echod.transports.facade import Facade
from echod.transports.layers import TLSLayer
from echod.transports.tcp import Server
from tests.certificates import Certificates
from tests.unit.outer import Outer, waitUntil
from tests.unit.proxyheaders import formatV2
from tests.unit.served import Served
from tests.unit.transports.test_socket_stream import Rig, reservedDescriptor

__all__ = ["reservedDescriptor"]

FILE = random.Random(41).randbytes(1_000_000)


class Sending(Protocol):
    """Sends a file with Twisted's own pull producer, then ends."""

    def connectionMade(self) -> None:
        assert self.transport is not None
        # What was written before comes before.
        self.transport.write(b"first")
        sent = FileSender().beginFileTransfer(io.BytesIO(FILE), self.transport)
        sent.addCallbacks(lambda _: self.transport.loseConnection(), lambda _: None)


def receiveAll(client: Any, turn: Any) -> bytes:
    """Up to FIN, at one's leisure."""
    client.setblocking(False)
    data = bytearray()
    ended: list[bool] = []

    def receive() -> bool:
        try:
            piece = client.recv(65536)
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        data.extend(piece)
        ended.extend([True] * (not piece))
        return bool(ended)

    waitUntil(turn, receive)
    return bytes(data)


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_fileSender(kind: str, tmp_path: Path) -> None:
    """All of a file, through what a facade listens with."""
    outer = Outer()
    facade = Facade(outer)
    factory = Factory.forProtocol(Sending)
    factory.noisy = False
    port: Any
    if kind == "tcp":
        port = facade.listenTCP(0, factory, interface="127.0.0.1")
    else:
        port = facade.listenUNIX(str(tmp_path / "socket"), factory)
    with socket.socket(port.socket.family) as client:
        client.connect(port.socket.getsockname())
        assert receiveAll(client, outer.turn) == b"first" + FILE
    port.stopListening()
    outer.rest()


def test_fileSenderOfAClient() -> None:
    """And through what it connects with."""
    outer = Outer()
    facade = Facade(outer)
    factory = ClientFactory()
    factory.protocol = Sending
    factory.noisy = False
    with socket.create_server(("127.0.0.1", 0)) as server:
        facade.connectTCP("127.0.0.1", server.getsockname()[1], factory)
        waitUntil(outer.turn, facade.getReaders)
        client, _ = server.accept()
        with client:
            assert receiveAll(client, outer.turn) == b"first" + FILE
        outer.rest()


def test_fileSenderOverTLS(certificates: Certificates) -> None:
    """Records of the same, below a transport that encrypts."""
    outer = Outer()
    facade = Facade(outer)

    class Later(Sending):
        def connectionMade(self) -> None:
            self.transport.beginOpening()  # type: ignore[union-attr]  # it is a Secured

        def handshakeCompleted(self) -> None:
            super().connectionMade()

    factory = Factory.forProtocol(Later)
    factory.noisy = False
    port: Any = facade.listenTCP(0, factory, interface="127.0.0.1")
    port.installLayers([TLSLayer(ServerTLS(TLSSettings(cert=certificates.server)))])
    context = certificates.context("1.3")
    with socket.socket() as plain:
        plain.connect(port.socket.getsockname())
        plain.setblocking(False)
        with context.wrap_socket(
            plain, server_hostname="localhost", do_handshake_on_connect=False
        ) as client:

            def shaken() -> bool:
                try:
                    client.do_handshake()
                except ssl.SSLWantReadError:
                    return False
                return True

            waitUntil(outer.turn, shaken)
            assert receiveAll(client, outer.turn) == b"first" + FILE
    port.stopListening()
    outer.rest()


@pytest.mark.parametrize("proxy", [False, True])
def test_fileSenderHosted(proxy: bool) -> None:
    """The same protocol on a listener, behind a proxy too."""
    protocol = (FactoryMaker("sends", "", lambda: Factory.forProtocol(Sending)), None)
    with Served(None, protocol, proxy=proxy) as served:
        with socket.create_connection(served.address) as client:
            if proxy:
                client.sendall(formatV2(("192.0.2.1", 1000), ("192.0.2.2", 443)))
            client.shutdown(socket.SHUT_WR)
            assert receiveAll(client, lambda wait: served.turn()) == b"first" + FILE
        served.gone()


# -- The same as Twisted's -------------------------------------------------------------------------


@implementer(IPullProducer)
class Pulled:
    """Writes its pieces one by one, each when it is asked; then it unregisters itself."""

    def __init__(self, rig: Rig, pieces: list[bytes], log: list[str]) -> None:
        self._rig = rig
        self._pieces = pieces
        self._log = log

    def resumeProducing(self) -> None:
        self._log.append("resume")
        if self._pieces:
            self._rig.transport.write(self._pieces.pop(0))
        else:
            self._rig.transport.unregisterProducer()

    def stopProducing(self) -> None:
        self._log.append("stop")


def play(kind: Any, script: str, buffer: int) -> tuple[list[str], bytes, list[Any]]:
    """What a producer was told, what the client got, and what the protocol was told."""
    rig = Rig(kind, sendBuffer=buffer, receiveBuffer=buffer)
    log: list[str] = []
    got = b""
    for action in script.split():
        if action == "pull":
            pieces = [bytes([number]) * 7 for number in range(5)]
            rig.transport.registerProducer(Pulled(rig, pieces, log), False)
        elif action == "push":
            rig.transport.registerProducer(rig.protocol, True)
        elif action == "drop":
            rig.transport.unregisterProducer()
        elif action == "little":
            rig.transport.write(b"L")
        elif action == "much":
            rig.transport.write(b"M" * 100_000)
        elif action == "lose":
            rig.transport.loseConnection()
        elif action == "read":
            got += rig.read()
    got += rig.read()
    rig.client.close()
    rig.rest()
    if rig.transport.producer is not None:
        rig.transport.unregisterProducer()
    rig.transport.abortConnection()
    rig.rest()
    return log, got, rig.events


PULLS = [
    "pull",
    "little pull",
    "much pull",
    "pull read drop little",
    "pull drop little read pull",
    "pull lose",
    "lose pull",
]
#: A write that the kernel takes whole pauses nobody here.
PUSHES = [
    "much push read drop pull",
    "push much drop read pull read",
    "push much drop little read",
    "much push little read drop lose",
]


@pytest.mark.parametrize(
    ("script", "buffer"),
    [(script, buffer) for script in PULLS for buffer in (20, 1 << 20)]
    + [(script, 20) for script in PUSHES],
)
def test_asTwistedDoes(script: str, buffer: int) -> None:
    """Told the same, in the same order; the same bytes."""
    assert play(Server, script, buffer) == play(tcp.Server, script, buffer)
