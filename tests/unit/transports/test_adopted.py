"""`echod.transports.adopted`: what a socket says of itself, and what is none."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from twisted.internet.protocol import Factory

from echod.config.endpoints import TCPEndpoint, UDPEndpoint, UNIXEndpoint
from echod.errors import ConfigurationError, ListenError
from echod.testing.stepped_loop import Loop
from echod.transports.adopted import adopting, examine
from echod.transports.tcp import TCPPort


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def bound(
    stack: ExitStack, family: int, kind: int, address: object, *, v6only: bool | None = None
) -> socket.socket:
    skt = stack.enter_context(socket.socket(family, kind))
    if v6only is not None:
        skt.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6only)
    skt.bind(address)  # type: ignore[arg-type]  # of any family
    return skt


def refused(skt: socket.socket | int) -> str:
    """What is said of a descriptor, after its number; it stays open."""
    number = skt if isinstance(skt, int) else skt.fileno()
    with pytest.raises(ConfigurationError) as caught:
        examine(number)
    if not isinstance(skt, int):
        os.fstat(number)
    message = str(caught.value)
    assert message.startswith(f"descriptor {number} ")
    return message.removeprefix(f"descriptor {number} ")


@pytest.mark.parametrize(
    ("family", "host", "v6only"),
    [
        (socket.AF_INET, "127.0.0.1", None),
        (socket.AF_INET, "0.0.0.0", None),
        (socket.AF_INET6, "::1", None),
        (socket.AF_INET6, "::", False),
        (socket.AF_INET6, "::", True),
        (socket.AF_INET6, "::ffff:127.0.0.1", False),
    ],
)
def test_networks(stack: ExitStack, family: int, host: str, v6only: bool | None) -> None:
    """Family, type and address are the socket's own; it is left as it was."""
    stream = bound(stack, family, socket.SOCK_STREAM, (host, 0), v6only=v6only)
    stream.listen(7)
    datagrams = bound(stack, family, socket.SOCK_DGRAM, (host, 0), v6only=v6only)
    for skt, endpoint in ((stream, TCPEndpoint), (datagrams, UDPEndpoint)):
        flags = fcntl.fcntl(skt, fcntl.F_GETFL), fcntl.fcntl(skt, fcntl.F_GETFD)
        assert examine(skt.fileno()) == endpoint(host, skt.getsockname()[1])
        assert (fcntl.fcntl(skt, fcntl.F_GETFL), fcntl.fcntl(skt, fcntl.F_GETFD)) == flags


def test_unix(stack: ExitStack, tmp_path: Path) -> None:
    """A path, or a name in no file system: ours, or one that the system chose."""
    path = tmp_path / "echod.sock"
    abstract = f"\0echod-unit-{os.getpid()}"
    for address, shown in ((str(path), str(path)), (abstract, f"@{abstract[1:]}"), ("", None)):
        skt = bound(stack, socket.AF_UNIX, socket.SOCK_STREAM, address)
        skt.listen()
        found = examine(skt.fileno())
        assert isinstance(found, UNIXEndpoint)
        assert found.path == shown or (shown is None and found.abstract and len(found.path) > 1)
        name = skt.getsockname()
        assert found.address == (name if isinstance(name, bytes) else os.fsencode(name))


def test_linkLocal(stack: ExitStack) -> None:
    """An address that means nothing without its interface has it."""
    with open("/proc/net/if_inet6") as file:
        found = [line.split() for line in file if line.startswith("fe80")]
    if not found:
        pytest.skip("no interface with a link-local IPv6 address")
    name = found[0][-1]
    host = socket.inet_ntop(socket.AF_INET6, bytes.fromhex(found[0][0]))
    address = (host, 0, 0, socket.if_nametoindex(name))
    skt = bound(stack, socket.AF_INET6, socket.SOCK_DGRAM, address)
    assert examine(skt.fileno()) == UDPEndpoint(f"{host}%{name}", skt.getsockname()[1])


def test_noSocket() -> None:
    """Closed, or something else."""
    free = max(map(int, os.listdir("/proc/self/fd"))) + 10
    assert refused(free) == "is not open; have whoever starts echod pass it"
    with open(os.devnull) as file:
        assert refused(file.fileno()) == "is no socket; pass a listening one"


def test_connections(stack: ExitStack) -> None:
    """One peer's: nobody else could come."""
    said = "is connected to one peer, and nobody else can come; in a socket unit write Accept=no"
    listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    client = stack.enter_context(socket.create_connection(listening.getsockname()))
    ours = stack.enter_context(listening.accept()[0])
    one, other = map(stack.enter_context, socket.socketpair())
    datagrams = bound(stack, socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0))
    datagrams.connect(("127.0.0.1", 9))
    for skt in (client, ours, one, other, datagrams):
        assert refused(skt) == said


def test_notReady(stack: ExitStack, tmp_path: Path) -> None:
    """Sockets of the right kind that nobody can reach."""
    unbound = "is bound to no address; bind it before it is passed"
    for family, kind in (
        (socket.AF_INET, socket.SOCK_STREAM),
        (socket.AF_INET6, socket.SOCK_DGRAM),
        (socket.AF_UNIX, socket.SOCK_STREAM),
    ):
        assert refused(stack.enter_context(socket.socket(family, kind))) == unbound
    skt = bound(stack, socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0))
    where = f"tcp 127.0.0.1:{skt.getsockname()[1]}"
    assert refused(skt) == f"({where}) does not listen; let it before it is passed"
    path = str(tmp_path / "echod.sock")
    skt = bound(stack, socket.AF_UNIX, socket.SOCK_STREAM, path)
    assert refused(skt) == f"(unix {path}) does not listen; let it before it is passed"


def test_otherKinds(stack: ExitStack, tmp_path: Path) -> None:
    """What echod does not speak is named."""
    tail = "; pass one of TCP, UDP or UNIX streams"
    path = str(tmp_path / "echod.sock")
    skt = bound(stack, socket.AF_UNIX, socket.SOCK_SEQPACKET, path)
    skt.listen()
    assert refused(skt) == f"is a socket of AF_UNIX, SOCK_SEQPACKET, protocol 0{tail}"
    skt = bound(stack, socket.AF_UNIX, socket.SOCK_DGRAM, f"{path}2")
    assert refused(skt) == f"is a socket of AF_UNIX, SOCK_DGRAM, protocol 0{tail}"
    skt = bound(stack, socket.AF_NETLINK, socket.SOCK_RAW, (0, 0))
    assert refused(skt) == f"is a socket of AF_NETLINK, SOCK_RAW, protocol 0{tail}"


def test_changedSinceItWasExamined(stack: ExitStack) -> None:
    """O3: a descriptor that is another socket by now, or none, is not listened on."""
    skt = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    number, endpoint = skt.fileno(), examine(skt.fileno())
    port = adopting(TCPPort, number)(endpoint, Factory(), 1, 60, Loop())
    other = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    now = examine(other.fileno())
    os.dup2(other.fileno(), number)
    with pytest.raises(ListenError) as caught:
        port.startListening()
    assert str(caught.value) == f"cannot listen on {endpoint}: descriptor {number} has become {now}"
    os.fstat(number)  # it is still not ours to close
    skt.close()
    with pytest.raises(ListenError) as caught:
        port.startListening()
    assert str(caught.value) == (
        f"cannot listen on {endpoint}: descriptor {number} is not open;"
        " have whoever starts echod pass it"
    )
