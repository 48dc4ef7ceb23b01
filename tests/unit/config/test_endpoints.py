"""`echod.config.endpoints`: words to values, or one line that says what to write."""

from __future__ import annotations

import os
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echod.config.endpoints import (
    DescriptorEndpoint,
    Endpoint,
    SystemdEndpoint,
    TCPEndpoint,
    UDPEndpoint,
    UNIXEndpoint,
    parseEndpoint,
    parseTarget,
)
from echod.errors import ConfigurationError
from echod.wire.addresses import formatAddress, formatName


def refused(text: str, interface: str = "127.0.0.1") -> str:
    """The message that refuses ``text``: one line, always."""
    with pytest.raises(ConfigurationError) as caught:
        parseEndpoint(text, interface)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("tcp:1234", "127.0.0.1", 1234),
        ("tcp:0", "127.0.0.1", 0),
        ("tcp:65535", "127.0.0.1", 65535),
        ("tcp:port=7", "127.0.0.1", 7),
        ("tcp:7:interface=0.0.0.0", "0.0.0.0", 7),
        ("tcp:interface=0.0.0.0:port=7", "0.0.0.0", 7),
        ("tcp:port=7:interface=10.0.0.1", "10.0.0.1", 7),
        (r"tcp:1235:interface=\:\:", "::", 1235),
        (r"tcp:1235:interface=\:\:1", "::1", 1235),
        (r"tcp:\1\2:interface=127.0.0.1", "127.0.0.1", 12),
        (r"tcp:1:interface=fe80\:\:1%eth0", "fe80::1%eth0", 1),
    ],
)
def test_words(text: str, host: str, port: int) -> None:
    """Twisted's escaping, a port first or by name, an interface or none."""
    assert parseEndpoint(text) == TCPEndpoint(host, port)


@pytest.mark.parametrize("interface", ["0.0.0.0", "::1", "10.1.2.3"])
def test_interfaceWhereTheTextHasNone(interface: str) -> None:
    """``--interface`` applies without ``interface=``, and only then."""
    assert parseEndpoint("tcp:7", interface) == TCPEndpoint(interface, 7)
    assert parseEndpoint("tcp:7:interface=1.2.3.4", interface) == TCPEndpoint("1.2.3.4", 7)


addresses = st.one_of(
    st.integers(0, 2**32 - 1).map(lambda number: str(IPv4Address(number))),
    st.integers(0, 2**128 - 1).map(lambda number: str(IPv6Address(number))),
)


@given(host=addresses, port=st.integers(0, 65535))
def test_everyAddressAndPort(host: str, port: int) -> None:
    """What is escaped is read back."""
    escaped = host.replace(":", r"\:")
    assert parseEndpoint(f"tcp:{port}:interface={escaped}") == TCPEndpoint(host, port)


@given(text=st.text(alphabet="tcp:=\\1interfa x.", max_size=30))
def test_anyText(text: str) -> None:
    """O3: whatever is written, a value or a `ConfigurationError` of one line."""
    try:
        endpoint = parseEndpoint(text)
    except ConfigurationError:
        assert repr(text) in refused(text)
    else:
        assert text.startswith("tcp:")
        assert isinstance(endpoint, TCPEndpoint)
        assert 0 <= endpoint.port <= 65535


@pytest.mark.parametrize(
    ("text", "path", "mode"),
    [
        ("unix:/run/echod.sock", "/run/echod.sock", 0o660),
        ("unix:/run/echod.sock:mode=600", "/run/echod.sock", 0o600),
        ("unix:mode=0777:address=relative", "relative", 0o777),
        (r"unix:/run/a\:b", "/run/a:b", 0o660),
        ("unix:@echod", "@echod", 0o660),
        ("unix:" + "x" * 107, "x" * 107, 0o660),
    ],
)
def test_unix(text: str, path: str, mode: int) -> None:
    """A path and the mode of its file; a name in no file system after ``@``."""
    endpoint = parseEndpoint(text)
    assert endpoint == UNIXEndpoint(path)
    assert isinstance(endpoint, UNIXEndpoint)
    assert endpoint.mode == mode
    assert str(endpoint) == f"unix {path}"
    assert endpoint.address == (b"\0echod" if path == "@echod" else path.encode())


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("unix", "needs one path: write unix:PATH[:mode=660]"),
        ("unix:", "needs one path"),
        ("unix:@", "needs one path"),
        ("unix:/a:/b", "has no use for '/b': write unix:PATH[:mode=660]"),
        ("unix:/a:address=/b", "needs one path"),
        ("unix:/a:mode=660:mode=600", "needs one path"),
        ("unix:/a:mode=rw", "'rw' in 'unix:/a:mode=rw' is no mode"),
        ("unix:/a:mode=888", "is no mode"),
        ("unix:/a:mode=60", "is no mode"),
        ("unix:" + "x" * 108, "is no path of a socket: at most 107 bytes"),
        ("unix:a\0b", "is no path of a socket"),
    ],
)
def test_wrongUNIX(text: str, part: str) -> None:
    assert part in refused(text)


@pytest.mark.parametrize(
    ("text", "endpoint", "shown"),
    [
        ("fd:3", DescriptorEndpoint(3), "fd 3"),
        ("fd:0", DescriptorEndpoint(0), "fd 0"),
        ("systemd:name=echod", SystemdEndpoint("echod"), "systemd echod"),
        ("systemd:name=echod.socket", SystemdEndpoint("echod.socket"), "systemd echod.socket"),
        ("systemd:name=a=b", SystemdEndpoint("a=b"), "systemd a=b"),
    ],
)
def test_passed(text: str, endpoint: Endpoint, shown: str) -> None:
    """A number, or a name; what is behind it is not for the operator to say."""
    assert parseEndpoint(text) == endpoint
    assert str(endpoint) == shown


@pytest.mark.parametrize(
    "text",
    ["fd", "fd:", "fd:-1", "fd:x", "fd:3:4", "fd:3:interface=a", "fd: 3", "fd:12345678", "fd:٣"],
)
def test_wrongDescriptor(text: str) -> None:
    """O3: the message names the text and the shape."""
    assert refused(text) == f"endpoint {text!r} needs one number of a descriptor: write fd:NUMBER"


@pytest.mark.parametrize(
    "text",
    [
        "systemd",
        "systemd:",
        "systemd:name=",
        "systemd:echod",
        "systemd:domain=INET:name=echod",
        "systemd:name=echod:interface=a",
        "systemd:index=0",
    ],
)
def test_wrongName(text: str) -> None:
    """O3: nothing but a name, unlike in Twisted's own word."""
    assert (
        refused(text) == f"endpoint {text!r} needs one name, and no more: write systemd:name=NAME"
    )


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "cannot listen on ''"),
        ("1234", "cannot listen on '1234'"),
        ("ssl:443", "cannot listen on 'ssl:443'"),
        ("TCP:1", "cannot listen on 'TCP:1'"),
        (r"tcp\:1", "cannot listen on"),
        ("tcp", "needs one port"),
        ("tcp:interface=0.0.0.0", "needs one port"),
        ("tcp:1:port=2", "needs one port"),
        ("tcp:port=1:port=2", "needs one port"),
        ("tcp:1:2", "no use for '2'"),
        ("tcp:interface=0.0.0.0:1", "no use for '1'"),
        ("tcp:1:backlog=5", "no use for 'backlog=5'"),
        ("tcp:1:interface=::1", "no use for ''"),
    ],
)
def test_refusedShapes(text: str, part: str) -> None:
    """O3: the message names the text, what is wrong and the shape to write."""
    message = refused(text)
    assert part in message
    assert repr(text) in message
    assert "tcp:PORT[:interface=ADDRESS]" in message


@pytest.mark.parametrize(
    "port", ["", "65536", "-1", "+1", "1.0", "http", " 1", "0x10", "1_0", "١٢", "²", "1\n"]
)
def test_refusedPorts(port: str) -> None:
    """O3: what is no decimal number from 0 to 65535, also where ``int`` would take it."""
    message = refused(f"tcp:{port}")
    assert f"{port!r} in {f'tcp:{port}'!r} is no port" in message
    assert "0 (any) to 65535" in message


def test_portOfTooManyDigits() -> None:
    """O3: Python converts no more than 4 300 digits; the message is ours all the same."""
    assert "is no port" in refused("tcp:" + "9" * 5000)


@pytest.mark.parametrize(
    "host", ["localhost", "", "127.0.0.256", "127.1", "1", r"\:\:g", r"[\:\:1]", "127.0.0.1/8"]
)
def test_refusedAddresses(host: str) -> None:
    """O3: names are not resolved; an address is an address."""
    message = refused(f"tcp:1:interface={host}")
    assert "is no address" in message
    assert r"\:" in message


def test_refusedInterface() -> None:
    """O3: the interface that was given apart is checked too."""
    assert "'nowhere'" in refused("tcp:1", "nowhere")


def test_shown() -> None:
    """O6: ``tcp HOST:PORT``, IPv6 in brackets."""
    assert str(TCPEndpoint("127.0.0.1", 1234)) == "tcp 127.0.0.1:1234"
    assert str(TCPEndpoint("::1", 0)) == "tcp [::1]:0"
    assert formatAddress("::", 7) == "[::]:7"
    assert formatAddress("0.0.0.0", 7) == "0.0.0.0:7"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"/run/echod.sock", "/run/echod.sock"),
        ("/run/\u00e9".encode(), "/run/\u00e9"),
        (b"\0echod", "@echod"),
        (b"\0\xff\0\xfe", r"@\xff\x00\xfe"),
        (b"/run/\xed\xb3\xbf", r"/run/\xed\xb3\xbf"),
        (b"/a\nb\x1b", r"/a\nb\x1b"),
        (b"", ""),
    ],
)
def test_names(name: bytes, shown: str) -> None:
    """A UNIX socket's name may be any bytes; it is shown as one printable line."""
    assert formatName(name) == shown
    if name:
        endpoint = UNIXEndpoint(os.fsdecode(b"@" + name[1:] if name[0] == 0 else name))
        assert endpoint.address == name
        assert str(endpoint) == f"unix {shown}"


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("tcp:1234", TCPEndpoint("127.0.0.1", 1234)),
        ("tcp:port=7:host=echo.example", TCPEndpoint("echo.example", 7)),
        ("tcp:7:interface=10.0.0.1", TCPEndpoint("10.0.0.1", 7)),
        ("tcp:7:interface=0.0.0.0", TCPEndpoint("127.0.0.1", 7)),
        (r"tcp:7:interface=\:\:", TCPEndpoint("::1", 7)),
        (r"tcp:7:host=\:\:1", TCPEndpoint("::1", 7)),
        ("udp:7:host=localhost", UDPEndpoint("localhost", 7)),
        ("unix:/run/echod.sock", UNIXEndpoint("/run/echod.sock")),
        ("unix:/run/echod.sock:mode=600", UNIXEndpoint("/run/echod.sock")),
        ("unix:@echod", UNIXEndpoint("@echod")),
        ("echo.example:7", TCPEndpoint("echo.example", 7)),
        ("bücher.example:7", TCPEndpoint("bücher.example", 7)),
        ("127.0.0.1:7", TCPEndpoint("127.0.0.1", 7)),
        ("[::1]:7", TCPEndpoint("::1", 7)),
        ("[0:0::1]:7", TCPEndpoint("::1", 7)),
    ],
)
def test_targets(text: str, target: Endpoint) -> None:
    """A client's side of the same words, also one that was copied from a listener."""
    found = parseTarget(text)
    assert found == target
    assert getattr(found, "tls", None) is None


@pytest.mark.parametrize("host", ["", ":host=echo.example", r":interface=\:\:1"])
def test_secureTarget(host: str) -> None:
    found = parseTarget(f"tls:853{host}")
    assert isinstance(found, TCPEndpoint)
    assert found.tls == {}


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "cannot connect to ''"),
        ("1234", "cannot connect to '1234': write HOST:PORT"),
        (":1234", "cannot connect to ':1234'"),
        ("::1:7", "an IPv6 address in brackets"),
        ("[]:7", "cannot connect to"),
        ("fd:3", "cannot connect to 'fd:3'"),
        ("ssl:443", "cannot connect to 'ssl:443'"),
        ("systemd:name=echo", "cannot connect to 'systemd:name=echo'"),
        ("tcp", "needs one port: write tcp:PORT[:host=HOST]"),
        ("tcp:host=localhost", "needs one port"),
        ("tcp:localhost:7", "has no use for '7'"),
        ("tcp:7:port=8", "has no use for 'port=8'"),
        ("tcp:7:host=a:interface=b", "has no use for 'interface=b'"),
        ("tcp:7:mode=600", "has no use for 'mode=600'"),
        ("tcp:0", "'0' in 'tcp:0' is no port: write a number from 1 to 65535"),
        ("localhost:0", "is no port: write a number from 1"),
        ("localhost:http", "'http' in 'localhost:http' is no port"),
        ("tcp:7:host=a b", "'a b' in 'tcp:7:host=a b' is no host"),
        ("a..b:7", "'a..b' in 'a..b:7' is no host"),
        ("tcp:7:host=", "'' in 'tcp:7:host=' is no host"),
        ("tls:7:cert=a.pem", "'cert=a.pem' in 'tls:7:cert=a.pem' is the listener's"),
        ("unix:", "needs one path"),
    ],
)
def test_wrongTargets(text: str, part: str) -> None:
    """O3: one line, which names the text and what to write."""
    with pytest.raises(ConfigurationError) as caught:
        parseTarget(text)
    assert part in str(caught.value)


@given(text=st.text(alphabet="tcpudlsnix:=\\1[]inerfa ho.", max_size=30))
def test_anyTarget(text: str) -> None:
    """A value or a `ConfigurationError`, whatever is written."""
    try:
        target = parseTarget(text)
    except ConfigurationError:
        return
    assert isinstance(target, UNIXEndpoint) or 1 <= target.port <= 65535
