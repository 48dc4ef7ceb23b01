"""`EchodService.reload` with protocols that raise: it succeeds, or it changes nothing."""

from __future__ import annotations

import os
import select
import socket
from asyncio import CancelledError
from collections import Counter
from collections.abc import Iterator
from errno import ENOSPC
from pathlib import Path
from typing import Any, cast

import pytest
from msgspec import Struct
from twisted.internet.protocol import DatagramProtocol, Factory
from twisted.logger import capturedLogs, formatEvent
from twisted.protocols.wire import Echo

from echod.errors import ConfigurationError
from echod.interfaces import IStreamProtocolMaker
from echod.kit.makers import DatagramMaker, FactoryMaker
from echod.server.registry import BUILTIN, Registry
from echod.transports.resting import PAUSE
from tests.ports import freePort
from tests.unit.outer import waitUntil
from tests.unit.reloading import Listened, Reloading


class Options(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where it raises: ``make``, ``start``, ``stop``, ``lasts`` or nowhere; and what."""

    raises: str = ""
    error: str = "OSError"


class Mute(Exception):
    """An error that cannot even say what it is."""

    def __str__(self) -> str:
        raise ValueError("no words")


#: What it may raise; the last three are no `Exception`.
ERRORS: dict[str, type[BaseException]] = {
    each.__name__: each for each in (OSError, SystemExit, KeyboardInterrupt, CancelledError)
}

#: Protocols that were started and not stopped, by what their options say.
running: Counter[str] = Counter()


def fail(options: Options, where: str) -> None:
    if options.raises == where:
        raise ERRORS.get(options.error, Mute)("no database")


class Streams(Factory):
    """Echoes."""

    noisy = False
    protocol = Echo

    def __init__(self, options: Options) -> None:
        self.options = options
        fail(options, "make")

    def startFactory(self) -> None:
        fail(self.options, "start")
        running[self.options.raises] += 1

    def stopFactory(self) -> None:
        running[self.options.raises] -= 1
        fail(self.options, "stop")


class Datagrams(DatagramProtocol):
    """The same."""

    def __init__(self, options: Options) -> None:
        self.options = options
        fail(options, "make")

    def startProtocol(self) -> None:
        assert self.transport is not None
        # Its address is known by then, also when it is another listener's still.
        assert cast("Any", self.transport).getHost().port
        fail(self.options, "start")
        running[self.options.raises] += 1

    def stopProtocol(self) -> None:
        running[self.options.raises] -= 1
        fail(self.options, "stop")

    def datagramReceived(self, data: bytes, addr: Any) -> None:
        assert self.transport is not None
        self.transport.write(data, addr)


REGISTRY = Registry(
    [
        *BUILTIN,
        FactoryMaker("streams", "x", Streams, Options),
        DatagramMaker("datagrams", "x", Datagrams, Options),
    ]
)


@pytest.fixture
def served() -> Iterator[Reloading]:
    """Stopped at the end; then whatever was started has been stopped."""
    running.clear()
    served = Reloading(REGISTRY)
    yield served
    served.stop()
    assert not running.total(), running


class Place:
    """Where a listener of one kind is, and its clients."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self.protocol = "datagrams" if kind == "udp" else "streams"
        self._path = folder / "socket"
        self._port = freePort()
        self.endpoint = f"unix:{self._path}" if kind == "unix" else f"{kind}:{self._port}"

    def listener(self, raises: str = "", *, error: str = "OSError", **limits: Any) -> Listened:
        options = {"raises": raises, "error": error}
        return self.protocol, self.endpoint, {"options": options, **limits}

    def connect(self) -> socket.socket:
        family = socket.AF_UNIX if self.kind == "unix" else socket.AF_INET
        client = socket.socket(
            family, socket.SOCK_DGRAM if self.kind == "udp" else socket.SOCK_STREAM
        )
        try:
            client.connect(
                str(self._path) if self.kind == "unix" else ("127.0.0.1", self._port),
            )
        except OSError:
            client.close()
            raise
        return client

    def isServed(self, served: Reloading) -> bool:
        try:
            with self.connect() as client:
                return served.echo(client, b"x") == b"x"
        except OSError:
            return False


@pytest.fixture(params=["tcp", "unix", "udp"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """One of each kind."""
    return Place(request.param, tmp_path)


@pytest.mark.parametrize("error", [*ERRORS])
@pytest.mark.parametrize("where", ["make", "start"])
def test_changedRaises(served: Reloading, place: Place, where: str, error: str) -> None:
    """An endpoint whose new protocol cannot be had is served as before; later all is well."""
    other = Place("tcp", Path())
    served.start(place.listener(), ("raw", other.endpoint, {"idle_timeout": 9.0}))
    with place.connect() as held:
        assert served.echo(held, b"x") == b"x"
        kept = served.kept()
        for _ in range(3):
            with pytest.raises(ConfigurationError, match=rf"^.*{error}: no database$"):
                served.reload(
                    ("raw", other.endpoint, {"idle_timeout": 8.0}),
                    ("raw", "tcp:0", {}),
                    place.listener(where, error=error),
                )
            assert served.kept() == kept
        assert place.isServed(served)
        assert other.isServed(served)
        assert served.echo(held, b"y") == b"y"
        assert [listener.limits.idleTimeout for listener in served.streams()][-1] == 9.0
        assert served.service.faults() == []
        served.reload(place.listener(idle_timeout=8.0, datagrams_per_second=9))
        assert place.isServed(served)
        assert served.echo(held, b"z") == b"z"
        assert not other.isServed(served)


@pytest.mark.parametrize("where", ["make", "start"])
def test_newRaises(served: Reloading, place: Place, where: str) -> None:
    """A new endpoint whose protocol cannot be had is not there, and nothing else changes."""
    other = Place("tcp", Path())
    served.start(("raw", other.endpoint, {}))
    kept = served.kept()
    for _ in range(3):
        with pytest.raises(ConfigurationError, match=r"listener\[1\]: .* OSError: no database$"):
            served.reload(("line", other.endpoint, {}), place.listener(where))
        assert served.kept() == kept
    assert other.isServed(served)
    assert not place.isServed(served)
    served.reload(place.listener())
    assert place.isServed(served)


@pytest.mark.parametrize("error", [*ERRORS])
def test_oldRaises(served: Reloading, place: Place, error: str) -> None:
    """A protocol that cannot be stopped costs a line; who comes after it is served."""
    other = Place("tcp", Path())
    served.start(place.listener("stop", error=error), ("raw", other.endpoint, {}))
    with capturedLogs() as events:
        served.reload(("line", other.endpoint, {}), place.listener(idle_timeout=8.0))
        assert place.isServed(served)
        # And one that is gone.
        served.reload(("line", other.endpoint, {}), place.listener("stop", error=error))
        served.reload(("line", other.endpoint, {"idle_timeout": 8.0}))
    assert not place.isServed(served)
    lines = [formatEvent(event) for event in events]
    told = [line for line in lines if "could not stop its protocol" in line]
    assert len(told) == 2
    assert all(line.endswith("no database") and "\n" not in line for line in told)
    assert not any("log_failure" in event for event in events)
    assert not running.total()


def test_startedIsStopped(served: Reloading, place: Place) -> None:
    """What had been started when something else failed is stopped, whatever that raises."""
    other = Place("tcp", Path())
    served.start(place.listener(), other.listener())
    assert running == {"": 2}
    with pytest.raises(ConfigurationError), capturedLogs() as events:
        served.reload(place.listener("stop"), other.listener("start"))
    assert running == {"": 2, "stop": 0}
    assert sum("could not stop" in formatEvent(event) for event in events) == 1
    assert place.isServed(served)
    assert other.isServed(served)


def test_errorWithoutWords(served: Reloading) -> None:
    """Also an error whose text cannot be had is one line."""
    place = Place("tcp", Path())
    served.start(place.listener())
    with pytest.raises(ConfigurationError, match=r"cannot be served: Mute: \(it cannot say"):
        served.reload(place.listener("start", error="Mute"))
    assert place.isServed(served)


def test_brokenTraits(served: Reloading) -> None:
    """Attributes that raise are found out before anything changes."""
    place = Place("tcp", Path())

    class Streaming(FactoryMaker):
        @property
        def lasts(self) -> bool:
            raise OSError("no database")

    broken = Streaming("broken", "x", Streams, Options)
    assert IStreamProtocolMaker.providedBy(broken)
    served.start(place.listener())
    served.registry = Registry([*BUILTIN, broken])
    with pytest.raises(ConfigurationError, match="no database"):
        served.reload(("broken", place.endpoint, {}))
    served.registry = REGISTRY
    assert place.isServed(served)


@pytest.mark.parametrize("error", [*ERRORS])
def test_optionsThatRaise(served: Reloading, error: str) -> None:
    """So are options whose class raises what msgspec does not know."""
    place = Place("tcp", Path())

    class Strict(Options, frozen=True, kw_only=True):
        def __post_init__(self) -> None:
            raise ERRORS[error]("no database")

    served.start(place.listener())
    served.registry = Registry([*BUILTIN, FactoryMaker("broken", "x", Streams, Strict)])
    with pytest.raises(ConfigurationError, match=r"listener\[0\].*no database"):
        served.reload(("broken", place.endpoint, {}))
    served.registry = REGISTRY
    assert place.isServed(served)


def test_notWatched(served: Reloading, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel watches no more (epoll_ctl(2)) just as the socket changes hands: tried again."""
    real = select.epoll
    full = False

    class Epoll:
        """The kernel's, of which there are few."""

        def __init__(self) -> None:
            self._epoll = real()

        def register(self, number: int, mask: int) -> None:
            if full:
                raise OSError(ENOSPC, os.strerror(ENOSPC))
            self._epoll.register(number, mask)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._epoll, name)

    monkeypatch.setattr(select, "epoll", Epoll)
    served.start(place.listener())
    with capturedLogs() as events:
        full = True
        served.reload(place.listener(idle_timeout=8.0, datagrams_per_second=9))
        with place.connect() as client:
            assert served.echo(client, b"x") == b""
            full = False
            served.loop.advance(PAUSE)
            waitUntil(served.loop.turn, served.service._facade.getReaders)
            assert served.echo(client, b"y") in (b"xy", b"x", b"y")
    assert sum("takes nobody for 0.5 s: No space" in formatEvent(event) for event in events) == 1
    assert place.isServed(served)


def test_deafIsAFault(served: Reloading, place: Place) -> None:
    """A listener whose port has closed under it is not well, and says so."""
    served.start(place.listener())
    assert served.service.faults() == []
    (listener,) = served.service.listeners
    listener._port.close()
    assert f"nobody is accepted at {listener.describe()}" in served.service.faults()
