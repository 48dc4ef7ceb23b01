"""`EchodService.reload` where something is in the way: what was served goes on being served."""

from __future__ import annotations

import gc
import os
import re
import socket
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from twisted.logger import capturedLogs, formatEvent

from echod.errors import ConfigurationError, ListenError
from echod.server.descriptors import RESERVED, RESERVED_EACH, descriptorsFor
from tests.ports import freePort
from tests.unit.conftest import LogLines
from tests.unit.outer import waitUntil
from tests.unit.reloading import Listened, Reloading, planOf


@pytest.fixture
def served() -> Iterator[Reloading]:
    """Stopped at the end."""
    served = Reloading()
    yield served
    served.stop()


def test_fileThatIsGone(served: Reloading, tmp_path: Path) -> None:
    """O1: the mode of a socket's file that somebody has removed: a line, and all else goes on."""
    path = tmp_path / "s"
    served.start(("raw", "tcp:0", {}), ("raw", f"unix:{path}", {}))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        assert served.echo(client, b"x") == b"x"
        path.unlink()
        with capturedLogs() as events:
            for seconds in (9.0, 8.0):
                limits = {"idle_timeout": seconds}
                served.reload(("raw", "tcp:0", limits), ("raw", f"unix:{path}:mode=600", limits))
        assert served.echo(client, b"y") == b"y"
        client.shutdown(socket.SHUT_WR)
        for _ in range(5):
            served.loop.turn()
    why = f"unix {path} keeps its mode: No such file or directory"
    assert [formatEvent(event) for event in events].count(why) == 2


def test_fileThatIsSomebodyElses(served: Reloading, tmp_path: Path) -> None:
    """What is at the path now is not ours to change, nor what a link leads to."""
    path, secret = tmp_path / "s", tmp_path / "secret"
    secret.touch(0o600)
    served.start(("raw", f"unix:{path}:mode=666", {}))
    path.unlink()
    for replace in (lambda: path.symlink_to(secret), lambda: os.link(secret, path)):
        replace()
        served.reload(("raw", f"unix:{path}:mode=666", {"idle_timeout": 9.0}))
        assert secret.stat().st_mode & 0o777 == 0o600
        served.reload(("raw", f"unix:{path}:mode=666", {}))
        path.unlink()


def test_modeOfTheFile(served: Reloading, tmp_path: Path) -> None:
    """It is ours, and changed."""
    path = tmp_path / "s"
    served.start(("raw", f"unix:{path}:mode=666", {}))
    served.reload(("raw", f"unix:{path}:mode=600", {}))
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("before", "after"),
    [(["127.0.0.1", "127.0.0.2"], ["127.0.0.1"]), (["127.0.0.1"], ["127.0.0.2"])],
    ids=["one of two goes", "its address changes"],
)
def test_ownPorts(served: Reloading, before: list[str], after: list[str]) -> None:
    """E6: a port stays our own as long as one listener has it, and no longer."""
    port = freePort()

    def ask() -> bytes:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.bind(("127.0.0.3", port))
            client.connect((after[0], served.service.listeners[-1].getHost().port))
            return served.echo(client, b"x")

    served.start(*(("udp", f"udp:{port}:interface={host}", {}) for host in before))
    served.reload(*(("udp", f"udp:{port}:interface={host}", {}) for host in after))
    assert ask() == b""
    limits = {"allow": ["0.0.0.0/0"]}
    served.reload(*(("udp", f"udp:{port}:interface={host}", limits) for host in after))
    assert ask() == b""
    served.reload(("udp", f"udp:0:interface={after[0]}", {}))
    assert ask() == b"x"


def test_nothingIsLeftOfOneThatFails(served: Reloading) -> None:
    """A reload that is refused leaves nothing behind, however often."""
    port, other = freePort(), freePort()
    served.start(("udp", f"udp:{port}", {}))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        wanted: list[tuple[str, str, dict[str, Any]]] = [
            ("raw", "tcp:0", {}),
            ("udp", f"udp:{other}", {}),
            ("raw", f"tcp:{taken.getsockname()[1]}", {}),
        ]
        swept = len(served.service._sweep._shardOf)
        for _ in range(3):
            with pytest.raises(ListenError):
                served.reload(("udp", f"udp:{port}", {}), *wanted)
        assert len(served.service._sweep._shardOf) == swept
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.bind(("127.0.0.1", other))
        client.connect(("127.0.0.1", port))
        assert served.echo(client, b"x") == b"x"


def test_logOfOneThatFails(served: Reloading, logLines: LogLines) -> None:
    """One that is refused has told of nothing that has not come to be."""
    served.start(("raw", "tcp:0", {}))
    new: Listened = ("raw", "tcp:0:interface=127.0.0.2", {"stall_timeout": 5.0})
    before = len(logLines.lines)
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ListenError):
        served.reload(("raw", "tcp:0", {}), new, ("raw", f"tcp:{taken.getsockname()[1]}", {}))
    assert logLines.lines[before:] == []
    served.reload(("raw", "tcp:0", {}), new)
    note, listening, reloaded = logLines.lines[before:]
    assert "stall_timeout is 5" in note
    assert listening == f"listening {served.service.listeners[1].describe()}"
    assert reloaded == "reloaded: 1 listeners are new, 0 changed, 0 gone"


#: Reloads that a connection outlives: more than Python's stack is deep.
MANY = 1100


@pytest.mark.parametrize("drain", [False, True], ids=["ends before", "ends in the drain"])
@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_outlivesManyReloads(served: Reloading, tmp_path: Path, kind: str, drain: bool) -> None:
    """A connection's end is quiet, and is the end of the drain, however many listeners came."""
    endpoint = "tcp:0" if kind == "tcp" else f"unix:{tmp_path}/s"

    def changed(number: int) -> list[tuple[str, str, dict[str, Any]]]:
        limits = {"idle_timeout": 1000.0 + number}
        return [("raw", endpoint, limits), ("udp", "udp:0", {"datagrams_per_second": 1 + number})]

    served.start(*changed(0))
    host = served.service.listeners[0].getHost()
    address = (host.host, host.port) if kind == "tcp" else f"{tmp_path}/s"
    with (
        socket.socket(socket.AF_INET if kind == "tcp" else socket.AF_UNIX) as client,
        capturedLogs() as events,
    ):
        client.connect(address)
        assert served.echo(client, b"x") == b"x"
        first, before = weakref.ref(served.service.listeners[0]), served.kept()
        for number in range(1, MANY + 1):
            served.reload(*changed(number))
        gc.collect()
        assert served.kept() == {**before, "listeners": before["listeners"] + 1}
        assert served.service.connectionCount() == 1
        assert first() is not None
        if drain:
            ended = served.beginStop()
        client.shutdown(socket.SHUT_WR)
        waitUntil(served.loop.turn, lambda: not served.service.connectionCount())
        assert not drain or ended
        # Once their last connection is gone nobody needs them.
        gc.collect()
        assert first() is None
    assert [event for event in events if "log_failure" in event] == []


RAW: Listened = ("raw", "tcp:0", {})
LINE: Listened = ("line", "tcp:0", {"options": {"prefix": "a "}})
OTHER: Listened = ("line", "tcp:0", {"options": {"prefix": "b "}})
UDP: Listened = ("udp", "udp:0", {})
ANYWHERE: Listened = ("raw", "tcp:0:interface=0.0.0.0", {})
HEADERS: Listened = ("raw", "tcp:0", {"proxy": ["127.0.0.1"]})


def withLimits(listener: Listened, seconds: float = 9.0) -> Listened:
    protocol, endpoint, table = listener
    limit = (
        {"datagrams_per_second": int(seconds)} if protocol == "udp" else {"idle_timeout": seconds}
    )
    return protocol, endpoint, {**table, **limit}


@pytest.mark.parametrize(
    ("before", "after", "kept"),
    [
        ([RAW, LINE], [LINE, RAW], [1, 0]),
        ([RAW, LINE, OTHER, UDP], [UDP, OTHER, RAW, LINE], [3, 2, 0, 1]),
        ([RAW, LINE], [LINE], [1]),
        ([RAW, HEADERS], [HEADERS], [1]),
        ([RAW, HEADERS], [withLimits(HEADERS)], [1]),
        ([RAW, ANYWHERE], [ANYWHERE, RAW], [1, 0]),
        # Other limits, and the order: what else there is tells them apart.
        ([LINE, OTHER], [withLimits(OTHER), withLimits(LINE)], [1, 0]),
        ([RAW, withLimits(RAW)], [withLimits(RAW), RAW], [1, 0]),
        ([UDP, withLimits(UDP)], [withLimits(UDP)], [1]),
        # Nothing does: the first for the first, and the same protocol alone.
        ([LINE, LINE], [withLimits(LINE), withLimits(LINE)], [0, 1]),
        ([LINE, OTHER], [("line", "tcp:0", {"options": {"prefix": "c "}})], [0]),
        ([RAW], [LINE], [None]),
        ([RAW], [HEADERS], [None]),
        ([RAW, LINE], [("upper", "tcp:0", {}), RAW], [None, 0]),
    ],
)
def test_anyPort(
    served: Reloading, before: list[Listened], after: list[Listened], kept: list[int | None]
) -> None:
    """A port that the system chose stays with what is served there, in whatever order."""
    served.start(*before)
    ports = served.ports()
    served.reload(*after)
    found = [ports.index(port) if port in ports else None for port in served.ports()]
    assert found == kept
    # The same again changes nothing.
    ports = served.ports()
    served.reload(*after)
    assert served.ports() == ports


def test_portThatIsGiven(served: Reloading) -> None:
    """A port of the operator's own choice goes on as whatever he writes there."""
    port = freePort()
    served.start(("raw", f"tcp:{port}", {}))
    number = served.service.listeners[0]._port.fileno()
    served.reload(("line", f"tcp:{port}", {"proxy": ["127.0.0.1"]}))
    assert served.service.listeners[0]._port.fileno() == number


@pytest.mark.parametrize("kind", ["tcp", "udp"])
@pytest.mark.parametrize(("before", "after"), [("127.0.0.1", "0.0.0.0"), ("0.0.0.0", "127.0.0.1")])
def test_ourOwnAddress(served: Reloading, kind: str, before: str, after: str) -> None:
    """Who holds the address of a new listener is the old one: that is said, and what to do."""
    port = freePort()
    name = "udp" if kind == "udp" else "raw"
    served.start((name, f"{kind}:{port}:interface={before}", {}))
    (listener,) = served.service.listeners
    with pytest.raises(
        ListenError,
        match=rf"^\$\.listener\[0\]: cannot listen on {kind} {after}:{port}: this daemon's own"
        rf" {name} {kind} {before}:{port} has the address; take that one out and reload, then",
    ):
        served.reload((name, f"{kind}:{port}:interface={after}", {}))
    assert served.service.listeners == [listener]
    served.reload(RAW)
    served.reload((name, f"{kind}:{port}:interface={after}", {}))
    assert served.ports() == [port]


def test_chosenPortIsGiven(served: Reloading) -> None:
    """Also the port that the system chose, written down as another listener's."""
    served.start(RAW)
    (port,) = served.ports()
    wanted: Listened = ("raw", f"tcp:{port}", {})
    others: list[Listened]
    for others in ([], [RAW]):
        with pytest.raises(ListenError, match=rf"own raw tcp 127.0.0.1:{port} has the address"):
            served.reload(*others, wanted)
    assert served.ports() == [port]


def test_twoSpellings(served: Reloading, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A UNIX socket's path is one, however it is spelled, wherever the daemon has gone."""
    served.directory = str(tmp_path)
    served.start(("raw", "unix:a", {}))
    number = (tmp_path / "a").stat().st_ino
    for spelling in ("./a", f"{tmp_path}/a", f"{tmp_path}//./a"):
        served.reload(("raw", f"unix:{spelling}", {}))
        assert (tmp_path / "a").stat().st_ino == number
        assert len(served.service.services) == 1
    with pytest.raises(ConfigurationError, match=r"a is taken by \$\.listener\[0\]"):
        served.reload(("raw", "unix:a", {}), ("raw", "unix:./a", {}))


def test_deafIsMended(served: Reloading) -> None:
    """A listener whose port has closed under it is bound anew."""
    port = freePort()
    served.start(("raw", f"tcp:{port}", {}))
    kept = served.kept()
    for _ in range(3):
        served.service.listeners[0]._port.close()
        served.reload(("raw", f"tcp:{port}", {}))
        served.reload(("raw", f"tcp:{port}", {}))
        assert served.kept() == kept
    with socket.create_connection(("127.0.0.1", port)) as client:
        assert served.echo(client, b"x") == b"x"


def test_noListenersLeft(served: Reloading) -> None:
    """Default listeners take nobody's place; but they follow each other."""
    byDefault = msgspec.structs.replace(planOf(served.registry, RAW), byDefault=True)
    served.start(LINE)
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=r"^no \[\[listener\]\] is left"):
            served.service.reload(byDefault)
    assert [listener.plan.maker.name for listener in served.service.listeners] == ["line"]
    served.stop()
    served.startWith(byDefault)
    served.service.reload(byDefault)
    served.reload(LINE)
    with pytest.raises(ConfigurationError, match=r"^no \[\[listener\]\] is left"):
        served.service.reload(byDefault)


def room(*maxima: int) -> int:
    """Descriptors that just so many connections at listeners need."""
    return RESERVED + sum(RESERVED_EACH + descriptorsFor(maximum) for maximum in maxima)


@contextmanager
def clients(served: Reloading, count: int, *, listener: int = 0) -> Iterator[None]:
    """So many, connected to one of the listeners; they have said nothing yet."""
    before = served.service.connectionCount()
    with ExitStack() as stack:
        for _ in range(count):
            address = ("127.0.0.1", served.ports()[listener])
            stack.enter_context(socket.create_connection(address))
        waitUntil(served.loop.turn, lambda: served.service.connectionCount() == before + count)
        yield


@pytest.mark.parametrize("proxy", [False, True], ids=["open", "opening"])
def test_descriptorsOfTheRetired(served: Reloading, proxy: bool) -> None:
    """Connections of listeners that are gone are counted, as long as they are there."""
    served.descriptors = room(20)
    one, other = freePort(), freePort()
    table: dict[str, Any] = {"max_connections": 20}
    served.start(("raw", f"tcp:{one}", {**table, **({"proxy": ["127.0.0.1"]} if proxy else {})}))
    with clients(served, 5):
        for _ in range(2):
            with pytest.raises(
                ConfigurationError,
                match=r"of 20 in all does not fit .* 5 are with connections of before",
            ):
                served.reload(("raw", f"tcp:{other}", table))
        assert served.ports() == [one]
        served.reload(("raw", f"tcp:{other}", {"max_connections": 15}))
        # They are counted at the next one too.
        with pytest.raises(ConfigurationError, match="of 20 in all"):
            served.reload(("raw", f"tcp:{other}", table))
        # One that stays counts its own.
        served.reload(("raw", f"tcp:{other}", {"max_connections": 15, "idle_timeout": 9.0}))
    waitUntil(served.loop.turn, lambda: not served.service.connectionCount())
    served.reload(("raw", f"tcp:{other}", table))
    (listener,) = served.service.listeners
    assert listener.limits.maxConnections == 20


def test_descriptorsAboveALowerMaximum(served: Reloading) -> None:
    """So are those that a listener has above what it may have from now on."""
    served.descriptors = room(20, 0)
    one, other = freePort(), freePort()
    before: Listened = ("raw", f"tcp:{one}", {"max_connections": 20})
    lowered: Listened = ("raw", f"tcp:{one}", {"max_connections": 2})
    new: Listened = ("line", f"tcp:{other}", {"max_connections": 14})
    served.start(before)
    with clients(served, 18):
        with pytest.raises(ConfigurationError, match=r"of 16 in all .* 15 are with connections"):
            served.reload(lowered, new)
        served.reload(lowered)
    waitUntil(served.loop.turn, lambda: not served.service.connectionCount())
    served.reload(lowered, new)


def test_descriptorsByDefault(served: Reloading) -> None:
    """Who has asked for no number gets what is left, and a line says so."""
    served.descriptors = room(100)
    served.start(("raw", f"tcp:{freePort()}", {}))
    (before,) = served.service.listeners
    with clients(served, 30), capturedLogs() as events:
        served.reload(("raw", f"tcp:{freePort()}", {}))
        (after,) = served.service.listeners
        total = descriptorsFor(after.limits.maxConnections) + 30
        assert total <= descriptorsFor(before.limits.maxConnections) < total + 3
    told = [formatEvent(event) for event in events]
    assert sum("max_connections is" in line for line in told) == 1


def passable(kind: str, folder: Path) -> tuple[socket.socket, Listened]:
    """A socket as another process would pass it, and its listener."""
    if kind == "udp":
        skt = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        skt.bind(("127.0.0.1", 0))
    elif kind == "unix":
        skt = socket.socket(socket.AF_UNIX)
        skt.bind(str(folder / "passed"))
        skt.listen()
    else:
        skt = socket.create_server(("127.0.0.1", 0))
    return skt, ("udp" if kind == "udp" else "raw", f"fd:{skt.fileno()}", {})


def isServed(served: Reloading, skt: socket.socket) -> bool:
    """Whether a client of that socket gets an echo."""
    with socket.socket(skt.family, skt.type) as client:
        client.connect(skt.getsockname())
        return served.echo(client, b"x") == b"x"


@pytest.mark.parametrize("kind", ["tcp", "unix", "udp"])
def test_passedSocketOfOneThatFails(served: Reloading, tmp_path: Path, kind: str) -> None:
    """A reload that is refused leaves a socket that was passed open, for the next."""
    served.start(RAW)
    skt, adopted = passable(kind, tmp_path)
    with skt:
        number = os.dup(skt.fileno())
        adopted = (adopted[0], f"fd:{number}", {})
        kept = served.kept()
        with socket.create_server(("127.0.0.1", 0)) as taken:
            for _ in range(2):
                with pytest.raises(ListenError, match="Address already in use"):
                    served.reload(RAW, adopted, ("raw", f"tcp:{taken.getsockname()[1]}", {}))
                assert os.fstat(number).st_ino == os.fstat(skt.fileno()).st_ino
        assert served.kept() == kept
        served.reload(RAW, adopted)
        assert isServed(served, skt)
        served.reload(RAW)
        # It was served: then it is the daemon's to close.
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(number)


@pytest.mark.parametrize("kind", ["tcp", "unix", "udp"])
def test_numberOfOurOwnSocket(served: Reloading, tmp_path: Path, kind: str) -> None:
    """A number that was a passed socket's is one of ours by now: nobody else gets that."""
    own: Listened = {
        "tcp": RAW,
        "unix": ("raw", f"unix:{tmp_path}/own", {}),
        "udp": UDP,
    }[kind]
    served.start(own)
    (listener,) = served.service.listeners
    port = listener._port
    for others in ([own], []):
        with pytest.raises(
            ListenError,
            match=rf"descriptor {port.fileno()} is that of this daemon's own .* by now: restart",
        ):
            served.reload(*others, (own[0], f"fd:{port.fileno()}", {}))
        assert served.service.listeners == [listener]
        assert isServed(served, port.socket)


# -- What the log says of it ---------------------------------------------------------------------


def told(logLines: LogLines, *words: str) -> list[str]:
    """The lines that begin so."""
    return [line for line in logLines.lines if line.split(" ")[0].rstrip(":") in words]


def test_namesWhatChanges(served: Reloading, tmp_path: Path, logLines: LogLines) -> None:
    """New, changed by which keys, gone: a line each, and their number."""
    first, second = freePort(), freePort()
    unix = f"unix:{tmp_path}/s"
    served.start(
        ("raw", f"tcp:{first}", {}),
        ("line", f"tcp:{second}", {"options": {"prefix": "a"}, "idle_timeout": 9.0}),
        ("raw", f"{unix}:mode=600", {}),
        ("raw", f"unix:{tmp_path}/t", {}),
    )
    before = len(logLines.lines)
    served.reload(
        ("line", f"tcp:{first}", {"idle_timeout": 5.0, "max_connections": 7, "proxy": ["::1"]}),
        ("line", f"tcp:{second}", {"options": {"prefix": "b"}}),
        ("raw", f"{unix}:mode=660", {}),
        ("raw", f"unix:{tmp_path}/u", {}),
    )
    assert logLines.lines[before:] == [
        f"listening raw unix {tmp_path}/u",
        (
            f"changed line tcp 127.0.0.1:{first} (proxy):"
            " protocol, max_connections, idle_timeout, options, proxy"
        ),
        f"changed line tcp 127.0.0.1:{second}: idle_timeout, options.prefix",
        f"changed raw unix {tmp_path}/s: endpoint",
        f"gone raw unix {tmp_path}/t",
        "reloaded: 1 listeners are new, 3 changed, 1 gone",
    ]
    served.reload(
        ("line", f"tcp:{first}", {"proxy": ["::2"]}),
        ("line", f"tcp:{second}", {"options": {"prefix": "b"}}),
        ("raw", f"{unix}:mode=660", {}),
        ("raw", f"unix:{tmp_path}/u", {}),
    )
    (changed,) = told(logLines, "changed")[3:]
    assert changed.endswith(": max_connections, idle_timeout, proxy")


def test_logSwitched(served: Reloading, logLines: LogLines) -> None:
    """
    C3: who was there when logging was switched on is logged from then on, whoever accepted it.

    The listener stays what it is: what is logged is no part of that.
    """

    def plan(limits: dict[str, Any], **logs: bool) -> Any:
        return msgspec.structs.replace(
            planOf(served.registry, ("raw", "tcp:0", limits), ("line", "tcp:0", {})), **logs
        )

    served.startWith(plan({}))
    listeners = served.service.listeners
    port, gone = served.ports()
    with (
        socket.create_connection(("127.0.0.1", port), 20) as early,
        socket.create_connection(("127.0.0.1", port), 20) as later,
        socket.create_connection(("127.0.0.1", gone), 20) as retired,
    ):
        assert served.echo(early, b"a") == b"a"
        assert served.echo(retired, b"a\n") == b"a\n"
        # Another listener takes over, and one is gone.
        served.reload(("raw", "tcp:0", {"idle_timeout": 9.0}))
        assert served.echo(later, b"a") == b"a"
        words = ("opened", "payload", "ended", "eof", "closed")
        assert told(logLines, *words) == []
        served.service.reload(
            msgspec.structs.replace(
                planOf(served.registry, ("raw", "tcp:0", {"idle_timeout": 9.0})),
                logConnections=True,
                logPayload=True,
            )
        )
        assert served.service.listeners != listeners
        (listener,) = served.service.listeners
        assert told(logLines, "changed") == [
            f"changed {listener.describe()}: idle_timeout",
            "changed for all: log_connections, log_payload",
        ]
        for client in (early, later, retired):
            assert served.echo(client, b"b\n") == b"b\n"
        payloads = told(logLines, "payload")
        assert [line.split(" ")[1] for line in payloads] == ["raw", "raw", "line"]
        assert all(line.endswith("size=2 data=b'b\\n'") for line in payloads)
        # Off again; all that is there goes on, unlogged.
        served.reload(("raw", "tcp:0", {"idle_timeout": 9.0}))
        assert served.service.listeners == [listener]
        for client in (early, later, retired):
            assert served.echo(client, b"c\n") == b"c\n"
        assert told(logLines, "payload") == payloads
        served.service.reload(
            msgspec.structs.replace(
                planOf(served.registry, ("raw", "tcp:0", {"idle_timeout": 9.0})),
                logConnections=True,
            )
        )
        assert served.service.listeners == [listener]
        assert told(logLines, "payload") == payloads
        for client in (early, later, retired):
            client.shutdown(socket.SHUT_WR)
        waitUntil(served.loop.turn, lambda: len(told(logLines, "closed")) == 3)
    lines = told(logLines, "opened", "eof", "closed")
    assert sorted(line.split(" ")[0] for line in lines) == ["closed"] * 3 + ["eof"] * 3
    ends = {re.search(r" id=(\S+) peer=127", line)[1] for line in lines}  # type: ignore[index]
    assert len(ends) == 3
