"""`echod.server.socket_activation`: the variables of sd_listen_fds(3), and what they say of
descriptors."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from echod.config.endpoints import DescriptorEndpoint, SystemdEndpoint, TCPEndpoint
from echod.errors import ConfigurationError
from echod.server.socket_activation import PassedSockets

PROCESS = 1234


@pytest.fixture(autouse=True)
def threeDescriptors() -> Iterator[None]:
    """Let 3, 4 and 5 be open, as they are where sockets are passed."""
    opened: list[int] = []
    while not opened or opened[-1] <= 5:
        opened.append(os.open(os.devnull, os.O_RDONLY))
    yield
    for number in opened:
        os.close(number)


def environment(
    count: str | None = "2", names: str | None = "a:b", process: str | None = str(PROCESS)
) -> dict[str, str]:
    values = {"LISTEN_FDS": count, "LISTEN_FDNAMES": names, "LISTEN_PID": process, "PATH": "/bin"}
    return {key: value for key, value in values.items() if value is not None}


def refused(values: dict[str, str], name: str = "a") -> str:
    """Why there are none of a name: one line."""
    with pytest.raises(ConfigurationError) as caught:
        PassedSockets.fromEnvironment(values, PROCESS).find(SystemdEndpoint(name))
    # Whatever they say: they are not handed on.
    assert values == {"PATH": "/bin"}
    message = str(caught.value)
    assert message.isprintable()
    return message


def unused(values: dict[str, str], *used: int) -> str:
    """Those that nobody uses, as they are told."""
    passed = PassedSockets.fromEnvironment(values, PROCESS)
    assert values == {"PATH": "/bin"}
    with pytest.raises(ConfigurationError) as caught:
        passed.checkUsed(used)
    told, _, _ = str(caught.value).partition(":")
    return told.removeprefix("no listener uses what was passed as descriptor ")


@pytest.mark.parametrize(
    ("count", "names", "told"),
    [
        ("1", "a", "3 (a)"),
        ("2", "a:b", "3 (a), 4 (b)"),
        ("3", "a:b:a", "3 (a), 5 (a), 4 (b)"),
        ("3", "a::b", "3 (a), 4 (), 5 (b)"),
        ("1", "", "3 ()"),
        ("3", None, "3 (unknown), 4 (unknown), 5 (unknown)"),
    ],
)
def test_names(count: str, names: str | None, told: str) -> None:
    """From 3 on, of one name several; without names all are ``unknown``."""
    assert unused(environment(count, names)) == told


def test_used() -> None:
    """Those that are used are not told; if all are, nothing is."""
    assert unused(environment("3", "a:b:a"), 5, 4) == "3 (a)"
    PassedSockets.fromEnvironment(environment("3", "a:b:a"), PROCESS).checkUsed([3, 4, 5, None])
    PassedSockets().checkUsed([])


def test_notInherited() -> None:
    """sd_listen_fds(3): all of them are closed in whatever program is started later."""
    for number in (3, 4, 5):
        before = os.get_inheritable(number)
        try:
            os.set_inheritable(number, True)
            PassedSockets.fromEnvironment(environment("3", None), PROCESS)
            assert not os.get_inheritable(number)
        finally:
            os.set_inheritable(number, before)


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"process": None}, "LISTEN_PID is not set: start echod by its socket unit"),
        ({"count": None}, "LISTEN_FDS is not set: start echod by its socket unit"),
        ({"count": "0", "names": ""}, "LISTEN_FDS is 0: start echod by its socket unit"),
        (
            {"process": "1"},
            "LISTEN_PID is '1' and this is process 1234: a shell in ExecStart= must exec echod",
        ),
        ({"process": "1234 "}, "LISTEN_PID is '1234 ' and this is process 1234:"),
        # Of somebody else's variables nothing is believed.
        ({"process": "1", "count": "x"}, "LISTEN_PID is '1' and this is process 1234:"),
    ],
)
def test_nonePassed(values: dict[str, str | None], why: str) -> None:
    """Nothing was passed to us, and why; whoever asks for none need not know."""
    assert refused(environment(**values)).startswith(f"no socket was passed: {why}")
    passed = PassedSockets.fromEnvironment(environment(**values), PROCESS)
    passed.checkUsed([])
    assert passed.find(TCPEndpoint("::1", 7)) == [(TCPEndpoint("::1", 7), None)]


@pytest.mark.parametrize("count", ["x", "", "-1", "+1", " 1", "1.0", "1_0", "٣", "9" * 5000])
def test_wrongCount(count: str) -> None:
    """O3: a count that is none."""
    wrong = f"LISTEN_FDS is {count!r}: it must be a number of descriptors"
    assert refused(environment(count)) == wrong


@pytest.mark.parametrize(
    ("count", "names"), [("2", "a"), ("2", "a:b:c"), ("2", ""), ("1", "a:"), ("9999999", "a:b")]
)
def test_wrongNames(count: str, names: str) -> None:
    """Not one name for each; Twisted forgets all of them."""
    assert refused(environment(count, names)) == (
        f"LISTEN_FDNAMES is {names!r}, but LISTEN_FDS is {count}:"
        " there must be one name for each descriptor"
    )


def test_notOpen() -> None:
    """O3: one that is closed by now."""
    number = max(map(int, os.listdir("/proc/self/fd"))) + 10
    assert refused(environment(str(number - 2), None)) in {
        f"LISTEN_FDS is {number - 2}, but descriptor {gap} is not open:"
        " whoever starts echod must keep it open"
        for gap in range(6, number + 1)
    }


def test_noSuchName() -> None:
    """The name, and the names that there are; Twisted raises ``KeyError``."""
    message = refused(environment("3", "a:b:a"), "c")
    assert message == "no socket named 'c' was passed (there are: a, b)"
    assert "'\\n\\x1b'" in refused(environment(), "\n\x1b").encode().decode()


def test_find() -> None:
    """A name is all of its sockets; a number is that one, passed or not."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("", 0)) as other:
        passed = PassedSockets({"a": [one.fileno()], "b": [other.fileno(), one.fileno()]})
        first = (TCPEndpoint(*one.getsockname()), one.fileno())
        second = (TCPEndpoint(*other.getsockname()), other.fileno())
        assert passed.find(SystemdEndpoint("a")) == [first]
        assert passed.find(SystemdEndpoint("b")) == [second, first]
        assert passed.find(DescriptorEndpoint(other.fileno())) == [second]
        assert PassedSockets().find(DescriptorEndpoint(one.fileno())) == [first]
