"""`echod.transports.binding`: sockets of our own, and one line where there can be none."""

from __future__ import annotations

import socket
from collections.abc import Callable
from errno import EADDRNOTAVAIL, EAFNOSUPPORT, EINVAL, ENOPROTOOPT, EOPNOTSUPP, EPERM
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.protocol import Factory

from echod.config.endpoints import ANY, TCPEndpoint, UDPEndpoint, UNIXEndpoint
from echod.errors import AddressMissing, ListenError
from echod.testing.stepped_loop import Loop
from echod.transports.binding import addressOf, makeSocket, refusals, setOptions
from echod.transports.tcp import TCPPort
from echod.transports.udp import UDPPort
from echod.transports.unix import UNIXListeningPort
from tests.unit.outer import Crowded
from tests.unit.transports.test_udp import Door, Echo

KINDS = [socket.SOCK_STREAM, socket.SOCK_DGRAM]


def portOf(kind: str, folder: Path, loop: Loop | None = None) -> Any:
    """One of each kind of port; nothing is bound yet."""
    loop = loop or Loop()
    if kind == "tcp":
        return TCPPort(TCPEndpoint("::", 0), Factory(), 5, 60, loop)
    if kind == "udp":
        return UDPPort(UDPEndpoint("::", 0), Echo(), Door(), lambda: 0.0, loop)
    return UNIXListeningPort(UNIXEndpoint(str(folder / "s")), Factory(), 5, loop)


def failing(step: str, number: int) -> type[socket.socket]:
    """Sockets of which one step fails."""

    def fails(self: Any, *arguments: Any) -> Any:
        raise OSError(number, "so it is")

    return type("Failing", (socket.socket,), {step: fails})


@pytest.mark.parametrize("error", [EPERM, EAFNOSUPPORT, EINVAL], ids=["EPERM", "EAFNOSUPPORT", "x"])
@pytest.mark.parametrize(
    ("kind", "step"),
    [
        *(("tcp", step) for step in ("__init__", "setblocking", "setsockopt", "bind", "listen")),
        *(("udp", step) for step in ("__init__", "setblocking", "setsockopt", "bind")),
        *(("unix", step) for step in ("__init__", "setblocking", "bind", "listen")),
    ],
)
def test_everyStep(
    kind: str, step: str, error: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """O3: whichever call is refused, one line names the endpoint; nothing is left, and no file."""
    port = portOf(kind, tmp_path)
    monkeypatch.setattr(socket, "socket", failing(step, error))
    with pytest.raises(ListenError) as raised:
        port.startListening()
    assert str(raised.value).startswith(f"cannot listen on {port._endpoint}: so it is")
    assert not port.connected
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["tcp", "udp", "unix"])
def test_cannotBeWatched(kind: str, tmp_path: Path) -> None:
    """O3: nor does a reactor that refuses the socket (epoll_ctl(2): ENOSPC) give a traceback."""
    port = portOf(kind, tmp_path, Crowded(refuses=object))
    with pytest.raises(ListenError, match="No space left on device"):
        port.startListening()
    assert not port.connected


def test_hints() -> None:
    """O3: the line says what to do where there is something."""
    with pytest.raises(ListenError) as raised, refusals(UDPEndpoint("::1", 7)):
        raise OSError(EAFNOSUPPORT, "Not supported")
    assert str(raised.value) == (
        "cannot listen on udp [::1]:7: Not supported;"
        " there is no IPv6 here: name an address of IPv4, or interface=any"
    )
    with pytest.raises(AddressMissing), refusals(TCPEndpoint("10.0.0.1", 7)):
        raise OSError(EADDRNOTAVAIL, "Cannot assign requested address")


@pytest.mark.parametrize("host", ["fe80::1%nosuch", "192.0.2.1", "2001:db8::1"])
@pytest.mark.parametrize("kind", KINDS)
def test_missingAddresses(host: str, kind: socket.SocketKind) -> None:
    """An address, and an interface, that is not there is told from what will never be."""
    with (
        pytest.raises(AddressMissing),
        refusals(TCPEndpoint(host, 0)),
        makeSocket(host, kind) as skt,
    ):
        skt.bind(addressOf(skt, host, 0))


@pytest.mark.parametrize("kind", KINDS)
def test_any(kind: socket.SocketKind) -> None:
    """All addresses are those of IPv6, and of IPv4, where the kernel has both."""
    with makeSocket(ANY, kind) as skt:
        assert skt.family == socket.AF_INET6
        assert not skt.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
        assert addressOf(skt, ANY, 7)[:2] == ("::", 7)
        assert skt.getblocking() is False


@pytest.mark.parametrize("kind", KINDS)
def test_anyWithoutIPv6(kind: socket.SocketKind, monkeypatch: pytest.MonkeyPatch) -> None:
    """And those of IPv4 where it has no IPv6; any other refusal is one."""

    class Lacking(socket.socket):
        number = EAFNOSUPPORT

        def __init__(self, family: int = -1, *arguments: Any) -> None:
            if family == socket.AF_INET6:
                raise OSError(self.number, "no IPv6")
            super().__init__(family, *arguments)

    monkeypatch.setattr(socket, "socket", Lacking)
    with makeSocket(ANY, kind) as skt:
        assert skt.family == socket.AF_INET
        assert addressOf(skt, ANY, 7) == ("0.0.0.0", 7)
    Lacking.number = EPERM
    with pytest.raises(PermissionError):
        makeSocket(ANY, kind)


@pytest.mark.parametrize("number", [ENOPROTOOPT, EOPNOTSUPP])
def test_unknownOptions(number: int) -> None:
    """What a kind of socket does not know is done without; any other error is raised."""
    options = [(socket.SOL_SOCKET, "SO_KEEPALIVE", 1), (socket.IPPROTO_TCP, "TCP_NODELAY", 1)]
    refusing: Callable[[int], socket.socket] = lambda error: failing("setsockopt", error)()  # noqa: E731
    with refusing(number) as skt:
        assert setOptions(skt, options) == ["SO_KEEPALIVE", "TCP_NODELAY"]
    with refusing(EINVAL) as skt, pytest.raises(OSError, match="so it is"):
        setOptions(skt, options)
    with socket.socket() as skt:
        assert setOptions(skt, options) == []
        assert skt.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
