"""`echod.transports.udp`: a port on real sockets, turn by turn."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from twisted.internet.protocol import DatagramProtocol

from echod.config.endpoints import UDPEndpoint
from echod.errors import ListenError
from echod.testing.stepped_loop import Loop
from echod.transports.udp import DATAGRAMS, LARGEST, UDPPort
from tests.conftest import LoggedErrors

#: Seconds after which what was sent on this host has not arrived.
PATIENCE = 20.0


class Echo(DatagramProtocol):
    """
    Answers what it is given, as often as it is told.

    :ivar heard: what that was, and from whom.
    :ivar instead: what it does in place of answering.
    """

    noisy = False

    def __init__(self) -> None:
        self.heard: list[tuple[bytes, Any]] = []
        self.answers = 1
        self.instead: Callable[[bytes, Any], None] | None = None
        self.stopped = False

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self.heard.append((datagram, addr))
        if datagram == b"fault":
            raise KeyError("its own")
        if self.instead is not None:
            self.instead(datagram, addr)
            return
        assert self.transport is not None
        for _ in range(self.answers):
            self.transport.write(datagram, addr)

    def stopProtocol(self) -> None:
        self.stopped = True


class Door:
    """
    Admits whom it has no reason against.

    :ivar reasons: by port.
    :ivar asked: what it was asked: host, port and the time.
    """

    def __init__(self) -> None:
        self.reasons: dict[int, str] = {}
        self.asked: list[tuple[str, int, float]] = []

    def refusal(self, host: str, port: int, now: float, client: str | None = None) -> str | None:
        self.asked.append((host, port, now))
        return self.reasons.get(port)


class Faulty:
    """A socket whose calls fail as often as they are told; what is not told is the real one's."""

    def __init__(self, skt: Any) -> None:
        self._socket = skt
        self.faults: dict[str, list[OSError]] = {}

    def __getattr__(self, name: str) -> Any:
        if self.faults.get(name):
            raise self.faults[name].pop(0)
        return getattr(self._socket, name)


class Kernel:
    """
    An imitated socket, for addresses that this host has not.

    :param coming: datagrams that wait, each with its control messages and its sender.
    :ivar sent: those that were sent, each with its control messages and its address.
    """

    def __init__(self, coming: list[tuple[bytes, list[Any], Any]]) -> None:
        self._coming = coming
        self.sent: list[tuple[bytes, list[Any], Any]] = []

    def recvmsg_into(self, buffers: list[bytearray], size: int) -> tuple[int, list[Any], int, Any]:
        if not self._coming:
            raise BlockingIOError
        data, messages, sender = self._coming.pop(0)
        buffers[0][: len(data)] = data
        return len(data), messages, 0, sender

    def sendmsg(self, data: list[bytes], messages: list[Any], flags: int, address: Any) -> None:
        self.sent.append((b"".join(data), messages, address))


class Rig:
    """A bound port, its protocol, its door and its loop."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.loop = Loop()
        self.protocol = Echo()
        self.door = Door()
        endpoint = UDPEndpoint(host, 0)
        self.port = UDPPort(endpoint, self.protocol, self.door, lambda: 12.5, self.loop)
        self.port.startListening()
        self.number = self.port.getHost().port

    def turn(self) -> None:
        """Have the port read what has come, which must be something."""
        assert self.loop.turn(PATIENCE)

    def faulty(self) -> Faulty:
        """Put faults between the port and its socket."""
        faulty = Faulty(self.port.socket)
        self.port.socket = faulty  # type: ignore[assignment]  # it has all that a socket has
        return faulty


@contextmanager
def rigged(host: str = "127.0.0.1") -> Iterator[Rig]:
    rig = Rig(host)
    try:
        yield rig
    finally:
        if rig.port.connected:
            rig.port.close()
        assert rig.protocol.stopped
        assert rig.loop.getReaders() == []


@pytest.fixture
def rig() -> Iterator[Rig]:
    """At 127.0.0.1."""
    with rigged() as rig:
        yield rig


@contextmanager
def opened(host: str = "127.0.0.1") -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as skt:
        skt.settimeout(PATIENCE)
        skt.bind((host, 0))
        yield skt


@pytest.fixture
def client() -> Iterator[socket.socket]:
    """At 127.0.0.1."""
    with opened() as skt:
        yield skt


def nothingFor(client: socket.socket) -> bool:
    """Whether no answer has come; one would be there once the port has sent it."""
    client.setblocking(False)
    with suppress(BlockingIOError):
        client.recv(1)
        return False
    client.settimeout(PATIENCE)
    return True


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("size", [0, 1, 8193, 65_507])
def test_wholeDatagrams(host: str, size: int) -> None:
    """E2: one for one, of any size; the protocol is told who sent it."""
    with rigged(host) as rig, opened(host) as client:
        data = bytes(range(256)) * (size // 256) + bytes(size % 256)
        client.sendto(data, (host, rig.number))
        rig.turn()
        assert client.recvfrom(LARGEST)[0] == data
        assert rig.protocol.heard == [(data, client.getsockname()[:2])]
        assert rig.door.asked == [(*client.getsockname()[:2], 12.5)]
        port = rig.port
        assert (port.received, port.bytesIn) == (port.answered, port.bytesOut) == (1, size)
        assert not port.errors
        assert not port.refused


@pytest.mark.parametrize(
    ("host", "asked"),
    [
        *(("0.0.0.0", "127.0.0.1"), ("0.0.0.0", "127.1.2.3")),
        *(("::", "::1"), ("::", "127.0.0.1"), ("::", "127.1.2.3")),
    ],
)
def test_answersFromTheAddressThatWasAsked(host: str, asked: str) -> None:
    """ip(7), RFC 3542 section 6: whatever the route back would choose."""
    with rigged(host) as rig, opened("::1" if ":" in asked else "127.0.0.9") as client:
        client.sendto(b"where?", (asked, rig.number))
        rig.turn()
        data, sender = client.recvfrom(100)
        assert (data, sender[:2]) == (b"where?", (asked, rig.number))


def test_batches(rig: Rig, client: socket.socket) -> None:
    """Empty datagrams too are counted against a turn; the rest waits for the next."""
    for _ in range(DATAGRAMS + 3):
        client.sendto(b"", ("127.0.0.1", rig.number))
    rig.turn()
    assert rig.port.received == DATAGRAMS
    assert rig.port.readsMuch
    rig.turn()
    assert rig.port.received == DATAGRAMS + 3
    assert not rig.port.readsMuch


def test_refused(rig: Rig, client: socket.socket) -> None:
    """E6: who is not admitted is counted by the reason; the protocol does not see it."""
    rig.door.reasons[client.getsockname()[1]] = "a_reason"
    for _ in range(2):
        client.sendto(b"x", ("127.0.0.1", rig.number))
    rig.turn()
    assert rig.port.refused == {"a_reason": 2}
    assert (rig.port.received, rig.port.answered, rig.protocol.heard) == (2, 0, [])
    assert nothingFor(client)


def test_broadcast(client: socket.socket) -> None:
    """E6: what was sent to everybody is refused before anybody is asked."""
    with rigged("0.0.0.0") as rig:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        client.sendto(b"everybody?", ("127.255.255.255", rig.number))
        rig.turn()
        assert rig.port.refused == {"not_unicast": 1}
        assert rig.door.asked == []
        assert nothingFor(client)


def test_multicast(client: socket.socket) -> None:
    """E6: likewise what was sent to a group."""
    loopback = socket.inet_aton("127.0.0.1")
    with rigged("0.0.0.0") as rig, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as member:
        group = socket.inet_aton("239.86.2.2") + loopback
        member.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
        client.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, loopback)
        client.sendto(b"members?", ("239.86.2.2", rig.number))
        rig.turn()
        assert rig.port.refused == {"not_unicast": 1}
        assert nothingFor(client)


#: struct in6_pktinfo of RFC 3542 section 6.1: the address that was asked, the interface.
PKTINFO6 = struct.Struct("=16sI")


@pytest.mark.parametrize(
    ("asked", "refused", "interface"),
    [
        *(("ff02::1", True, 0), ("ff05::8602", True, 0)),
        *(("fe80::1", False, 3), ("febf::1", False, 3), ("fec0::1", False, 0)),
        *(("2001:db8::1", False, 0), ("::1", False, 0)),
    ],
)
def test_addressesOverIPv6(asked: str, refused: bool, interface: int) -> None:
    """
    E6: a group is known by its first byte (RFC 4291, 2.7); an answer comes from the address that
    was asked, and only if that is link-local (2.5.6) from that interface, or routing would fail.
    """
    with rigged("::") as rig:
        address = socket.inet_pton(socket.AF_INET6, asked)
        came = [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, PKTINFO6.pack(address, 3))]
        sender = ("2001:db8::2", 40000, 0, 0)
        kernel = Kernel([(b"x", came, sender)])
        skt, rig.port.socket = rig.port.socket, kernel  # type: ignore[assignment]  # an imitated one
        rig.port.doRead()
        rig.port.socket = skt
        assert rig.port.refused == ({"not_unicast": 1} if refused else {})
        back = [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, PKTINFO6.pack(address, interface))]
        assert kernel.sent == ([] if refused else [(b"x", back, sender)])


def test_addressUnknown(rig: Rig) -> None:
    """Where the kernel does not say which address was asked, the answer leaves it to routing."""
    kernel = Kernel([(b"x", [], ("127.0.0.2", 40000))])
    skt, rig.port.socket = rig.port.socket, kernel  # type: ignore[assignment]  # an imitated one
    rig.port.doRead()
    rig.port.socket = skt
    assert kernel.sent == [(b"x", [], ("127.0.0.2", 40000))]


def test_noMoreThanWasSent(rig: Rig, client: socket.socket) -> None:
    """E7: answers together are no longer than the question; what is beyond that is counted."""
    rig.protocol.answers = 3
    client.sendto(b"hello", ("127.0.0.1", rig.number))
    rig.turn()
    assert client.recv(100) == b"hello"
    assert nothingFor(client)
    assert rig.port.refused == {"amplified": 2}
    assert (rig.port.answered, rig.port.bytesOut) == (1, 5)


def test_onlyTheDatagramAtHand(rig: Rig, client: socket.socket) -> None:
    """E6, E7: nothing is sent later, nor to somebody else."""
    rig.port.write(b"before", client.getsockname())
    client.sendto(b"x", ("127.0.0.1", rig.number))
    with opened("127.0.0.2") as other:
        address = other.getsockname()
        rig.protocol.instead = lambda datagram, addr: rig.port.write(datagram, address)
        rig.turn()
        assert nothingFor(other)
    rig.port.write(b"after", client.getsockname())
    assert nothingFor(client)
    assert rig.port.refused == {"unasked": 3}
    assert rig.port.answered == 0


def test_withoutAnAddress(rig: Rig, client: socket.socket) -> None:
    """A protocol need not say whom it answers."""
    rig.protocol.instead = lambda datagram, addr: rig.port.write(datagram[::-1])
    client.sendto(b"abc", ("127.0.0.1", rig.number))
    rig.turn()
    assert client.recv(100) == b"cba"


def test_protocolRaises(rig: Rig, client: socket.socket, loggedErrors: LoggedErrors) -> None:
    """O4: what a protocol raises costs its own datagram; it is told once, then counted."""
    for data in (b"fault", b"fault", b"fine"):
        client.sendto(data, ("127.0.0.1", rig.number))
    rig.turn()
    assert client.recv(100) == b"fine"
    assert rig.port.errors == {"protocol": 2}
    (told,) = loggedErrors.flush()
    assert told == "udp 127.0.0.1:0 raised; told once, then counted'its own'"
    # Nor can it be answered afterwards.
    rig.port.write(b"late", client.getsockname())
    assert rig.port.refused == {"unasked": 1}


def test_errorsOfReceiving(rig: Rig, client: socket.socket) -> None:
    """After an error of the socket it reads on; each is counted by its name."""
    rig.faulty().faults["recvmsg_into"] = [
        OSError(errno.ENOMEM, "none left"),
        OSError(errno.ECONNREFUSED, "nobody there"),
        OSError("without a number"),
    ]
    client.sendto(b"still there?", ("127.0.0.1", rig.number))
    rig.turn()
    assert client.recv(100) == b"still there?"
    assert rig.port.errors == {"ENOMEM": 1, "ECONNREFUSED": 1, "without a number": 1}


def test_errorsOfSending(rig: Rig, client: socket.socket) -> None:
    """An answer that cannot be sent is counted, and is no answer; the next is sent."""
    rig.faulty().faults["sendmsg"] = [OSError(errno.ENOBUFS, "none left")]
    for data in (b"lost", b"sent"):
        client.sendto(data, ("127.0.0.1", rig.number))
    rig.turn()
    assert client.recv(100) == b"sent"
    assert rig.port.errors == {"ENOBUFS": 1}
    assert (rig.port.received, rig.port.answered, rig.port.bytesOut) == (2, 1, 4)


def test_serveQueue(rig: Rig, client: socket.socket) -> None:
    """O1: at the end, all that the kernel has by then is answered, in more than a batch."""
    count = DATAGRAMS * 2 + 5
    for number in range(count):
        client.sendto(b"%d" % number, ("127.0.0.1", rig.number))
    rig.port.serveQueue()
    assert [client.recv(100) for _ in range(count)] == [b"%d" % number for number in range(count)]


def test_serveQueueEnds(rig: Rig, client: socket.socket) -> None:
    """O1: although somebody goes on sending: what the queue can hold is the limit."""

    def again(datagram: bytes, addr: Any) -> None:
        client.sendto(b"", ("127.0.0.1", rig.number))
        rig.port.write(datagram, addr)
        client.recv(100)

    rig.protocol.instead = again
    rig.port.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    size = rig.port.socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    client.sendto(b"", ("127.0.0.1", rig.number))
    rig.port.serveQueue()
    assert rig.port.received == (size // 512 // DATAGRAMS + 1) * DATAGRAMS
    assert rig.port.readsMuch


def test_inUse(client: socket.socket) -> None:
    """O3: one line that names the address and says how to find who has it."""
    endpoint = UDPEndpoint("127.0.0.1", client.getsockname()[1])
    port = UDPPort(endpoint, Echo(), Door(), lambda: 0.0, Loop())
    with pytest.raises(ListenError) as raised:
        port.startListening()
    assert str(raised.value) == (
        f"cannot listen on {endpoint}: Address already in use; who holds it: ss -lnup"
    )


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1"])
def test_foreignAddress(host: str) -> None:
    """O3: an address that is not ours (RFC 5737, RFC 3849) is named, without that hint."""
    port = UDPPort(UDPEndpoint(host, 0), Echo(), Door(), lambda: 0.0, Loop())
    with pytest.raises(ListenError) as raised:
        port.startListening()
    assert str(raised.value).endswith(": Cannot assign requested address")
    assert host in str(raised.value)


def test_close(rig: Rig, client: socket.socket) -> None:
    """It is closed at once: nobody reads, the address is free, the protocol has been told."""
    rig.port.close()
    assert rig.loop.getReaders() == []
    assert rig.protocol.stopped
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
        again.bind(("127.0.0.1", rig.number))
