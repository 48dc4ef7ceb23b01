"""
How a connection ended, who did it, and what led to it: `/closed` tells it rightly of each end.

Each end is made by a client as clients make it, over each way on which there is such an end::

    end            tcp  tls  unix  proxied  proxied_unix  proxied_tls
    peer's FIN      x    x    x       x          x             x
    peer's RST      x    x    x       x          x             x
    quit            x    x    x       x          x             x
    too long        x    x    x       x          x             x
    idle            x    x    x       x          x             x
    stall           x    x    x       x          x             x
    linger          x    x    x       x          x             x
    max age         x    x    x       x          x             x
    evicted         x    x    x       x          x             x
    truncated            x                                     x
    drain           x    x    x       x          x             x
    refused                           x          x             x
    no header                         x          x             x
    handshake            x            x          x             x
    network         x

A truncation is FIN without close_notify, so there is none without TLS.  Only a PROXY header can be
missing, or tell of a client that may not come: who may not come by its own address is refused
before there is a connection (`/refused`).  Without a header and a handshake nothing can come too
late.  The network loses packets of TCP, whatever stands on it; a UNIX socket has none.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.certificates import Certificates
from tests.integration.asking import ask, closed
from tests.integration.daemon import MODULE, PATIENCE, Daemon, waitFor
from tests.integration.loaded import LoadedDaemon
from tests.integration.namespaces import namespace, needsRoot
from tests.integration.peers import HARM, SMALL, assertUnharmed, configured
from tests.tlspeer import Peer
from tests.unit.proxyheaders import ASKED, CLIENT, formatV2

#: Seconds of each deadline, and of a drain.
SOON, DRAIN = 1.0, 15.0
#: Seconds after the end within which the story is there.  It is mostly there in 10 ms.
TOLD = 5.0
#: By how much a deadline may come too early, or late: the clock of deadlines goes by tenths of a
#: second, they are looked at once a second, and the machine has other work.
EARLY, LATE = 0.25, 8.0
TCP = ("tcp", "tls", "proxied", "proxied_tls")
WAYS = ("tcp", "tls", "unix", "proxied", "proxied_unix", "proxied_tls")
LOCAL = ["127.0.0.0/8"]
DENIED = ("10.0.0.7", 40000)


class Client:
    """
    One of a test's.

    :param way: how it comes, one of `WAYS`.
    :param address: where to.
    :param source: the client that its PROXY header tells of, if there is to be one.
    """

    def __init__(
        self,
        way: str,
        address: Any,
        certificates: Certificates,
        source: tuple[str, int] | None = CLIENT,
    ) -> None:
        self.another = lambda: Client(way, address, certificates, source)
        self._tls = way.endswith("tls")
        self._peer = Peer(address, certificates.context(), buffers=SMALL)
        self.local = not isinstance(address, tuple)
        self.name = "" if self.local else "{}:{}".format(*self._peer.socket.getsockname())
        if way.startswith("proxied") and source is not None:
            self._peer.send(formatV2(source, ASKED))
            self.name = "{}:{}".format(*source)
        self.got = 0

    def begin(self) -> None:
        """TLS, if there is to be any."""
        if self._tls:
            self._peer.shakeHands()

    def send(self, data: bytes) -> None:
        """Send it, in TLS if there is to be any."""
        self._peer.send(self._peer.seal(data) if self._tls else data)

    def sendBare(self, data: bytes) -> None:
        """Send it as it is."""
        self._peer.send(data)

    def ping(self, data: bytes = b"hello\n") -> None:
        """Send, and have it back."""
        if self._tls:
            self._peer.ping(data)
            return
        self.send(data)
        self._peer.until(lambda: len(self._peer.wire) >= len(data) or self._peer.end, "the echo")
        assert bytes(self._peer.wire) == data
        self._peer.wire.clear()

    def fill(self) -> None:
        """Send, and read nothing, until it is broken."""
        self._peer.socket.settimeout(PATIENCE)
        data = bytes(16384)
        while not self._peer.end:
            try:
                self._peer.socket.sendall(self._peer.seal(data) if self._tls else data)
            except (BrokenPipeError, ConnectionResetError):
                self._peer.end = "RST"

    def finish(self) -> None:
        """FIN, behind close_notify if there is TLS."""
        if self._tls:
            self._peer.send(self._peer.closeNotify())
        self._peer.finish()

    def truncate(self) -> None:
        """FIN alone."""
        self._peer.finish()

    def reset(self, data: bytes = b"more") -> None:
        """
        RST.  A UNIX socket does so if something was not read.

        :param data: what is answered.
        """
        if self.local:
            self._peer.send(data, reading=False)
            self._peer.socket.settimeout(PATIENCE)
            assert self._peer.socket.recv(1, socket.MSG_PEEK)
        self._peer.reset()

    def ended(self) -> bool:
        """Whether it has been ended by now; waits a moment for that."""
        if not self._peer.receive():
            self._peer.turn()
        return bool(self._peer.end)

    def untilEnd(self) -> str:
        """Read to the end; returns ``FIN`` or ``RST``."""
        self._peer.until(lambda: self._peer.end, "the end")
        return self._peer.end

    def close(self) -> None:
        self._peer.socket.close()


class Place(NamedTuple):
    """
    A listener.

    :ivar name: as the daemon calls it.
    """

    name: str
    address: Any


class End(NamedTuple):
    """
    An end as a client makes it.

    :ivar play: does it, to the last that the client does; returns what it has seen.
    :ivar told: reason, end, and who did it.
    :ivar words: what the timeline has, from the first byte on, or instead of it.
    :ivar limits: of the listener.
    :ivar protocol: with its options.
    :ivar bytes: that came in, and that went out; ``None`` if it is as much, and nobody knows.
    :ivar ways: on which there is such an end.
    """

    play: Callable[[Client], object]
    told: tuple[str, str, str]
    words: str
    limits: Mapping[str, Any] = {}
    protocol: Mapping[str, Any] = {"protocol": "raw", "options": {"quit": "bye"}}
    bytes: tuple[int, int] | None = (6, 6)
    ways: tuple[str, ...] = WAYS


RAW = {"protocol": "raw"}
LINE = {"protocol": "line", "options": {"max_length": 100}}
TALK = "first read write"


def finished(client: Client) -> None:
    client.begin()
    client.ping()
    client.finish()
    assert client.untilEnd() == "FIN"


def broken(client: Client) -> None:
    client.begin()
    client.ping()
    client.reset()


def quitting(client: Client) -> None:
    client.begin()
    client.ping()
    client.send(b"bye")
    assert client.untilEnd() == "FIN"
    client.finish()


def tooLong(client: Client) -> None:
    client.begin()
    client.ping()
    client.send(b"x" * 500)
    assert client.untilEnd() == "FIN"
    client.finish()


def waiting(client: Client) -> None:
    """One that the daemon ends."""
    client.begin()
    client.ping()
    assert client.untilEnd() == "FIN"
    client.finish()


def evicted(client: Client) -> None:
    """Others come, until one of them gets its place: it must have been idle for a second."""
    client.begin()
    client.ping()
    while not client.ended():
        client.another().close()
    client.finish()


def stalling(client: Client) -> None:
    client.begin()
    client.fill()


def lingering(client: Client) -> None:
    """One that goes on, after our FIN too."""
    client.begin()
    client.ping()
    client.send(b"bye")
    assert client.untilEnd() == "FIN"


def truncating(client: Client) -> None:
    client.begin()
    client.ping()
    client.truncate()
    assert client.untilEnd()


def turnedAway(client: Client) -> None:
    assert client.untilEnd()


def without(client: Client) -> None:
    client.sendBare(b"GET / HTTP/1.1\r\n\r\n")
    assert client.untilEnd()
    client.truncate()


def late(client: Client) -> None:
    assert client.untilEnd()


ENDS = {
    "peer_fin": End(finished, ("eof", "fin", "peer"), f"{TALK} peer_fin our_fin end", protocol=RAW),
    "peer_rst": End(broken, ("reset", "rst", "peer"), f"{TALK} rst end", protocol=RAW),
    "quit": End(
        quitting,
        ("quit", "fin", "us"),
        f"{TALK} ending our_fin peer_fin end",
        bytes=(9, 9),
    ),
    "too_long": End(
        tooLong,
        ("too_long", "fin", "us"),
        f"{TALK} ending our_fin peer_fin end",
        protocol=LINE,
        bytes=(506, 6),
    ),
    "idle": End(
        waiting,
        ("idle", "fin", "us"),
        f"{TALK} deadline ending our_fin peer_fin end",
        {"idle_timeout": SOON},
        RAW,
    ),
    "stall": End(
        stalling,
        ("stalled", "abort", "us"),
        f"{TALK} pause deadline unread rst end",
        {"stall_timeout": SOON},
        RAW,
        bytes=None,
    ),
    "linger": End(
        lingering,
        ("quit", "abort", "us"),
        f"{TALK} ending our_fin deadline rst end",
        {"linger_timeout": SOON},
        bytes=(9, 9),
    ),
    "max_age": End(
        waiting,
        ("max_age", "fin", "us"),
        f"{TALK} deadline ending our_fin peer_fin end",
        {"max_age": SOON},
        RAW,
    ),
    "evicted": End(
        evicted,
        ("evicted", "fin", "us"),
        f"{TALK} ending our_fin peer_fin end",
        {"max_connections": 1},
        RAW,
    ),
    "truncated": End(
        truncating,
        ("no_close_notify", "fin", "peer"),
        f"{TALK} peer_fin our_fin end",
        protocol=RAW,
        ways=("tls", "proxied_tls"),
    ),
    "refused": End(
        turnedAway,
        ("refused", "abort", "us"),
        "rst end",
        {"deny": ["10.0.0.0/8"]},
        ways=("proxied", "proxied_unix", "proxied_tls"),
        bytes=(0, 0),
    ),
    "no_header": End(
        without,
        ("header", "fin", "peer"),
        "ending our_fin peer_fin end",
        ways=("proxied", "proxied_unix", "proxied_tls"),
        bytes=(0, 0),
    ),
    "handshake": End(
        late,
        ("handshake", "abort", "us"),
        "deadline rst end",
        {"handshake_timeout": SOON},
        ways=("tls", "proxied", "proxied_unix", "proxied_tls"),
        bytes=(0, 0),
    ),
}
#: What a deadline is called, where one leads to the end.
DEADLINES = {"idle", "stall", "linger", "max_age", "handshake"}
CASES = [(name, way) for name, end in ENDS.items() for way in end.ways]


def table(end: End, way: str, path: Path, certificates: Certificates) -> dict[str, Any]:
    """``[[listener]]`` for an end on a way."""
    return {
        **end.protocol,
        "endpoint": f"unix:{path}" if way.endswith("unix") else "tcp:0:interface=127.0.0.1",
        **({"proxy": LOCAL} if way.startswith("proxied") else {}),
        **({"tls": {"cert": certificates.server}} if way.endswith("tls") else {}),
        **end.limits,
    }


def placesOf(admin: Path, keys: list[Any]) -> dict[Any, Place]:
    """The listeners in the order of the configuration, by ``keys``."""
    rows = ask(admin, "/listeners")["listeners"]
    found = {}
    for key, row in zip(keys, rows, strict=False):
        kind, _, where = row["endpoint"].partition(" ")
        host, _, port = where.rpartition(":")
        found[key] = Place(row["listener"], (host, int(port)) if kind == "tcp" else where)
    return found


class Scene(NamedTuple):
    """A daemon: its admin listener's path, and its listeners by end and way."""

    admin: Path
    places: dict[tuple[str, str], Place]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("ends")
    admin = folder / "admin"
    tables = [table(ENDS[name], way, folder / f"{name}.{way}", certificates) for name, way in CASES]
    tables.append({"protocol": "admin", "endpoint": f"unix:{admin}"})
    with LoadedDaemon(configured(folder, *tables)) as daemon:
        yield Scene(admin, placesOf(admin, CASES))
        assertUnharmed(daemon, HARM)


def storyOf(admin: Path, listener: str, reason: str) -> dict[str, Any]:
    """What is told of the one connection of a listener that ended for a reason."""

    def found() -> dict[str, Any] | None:
        rows = closed(admin, listener, reason)
        assert len(rows) <= 1
        return rows[0] if rows else None

    begun = time.monotonic()
    row: dict[str, Any] = waitFor(found, f"a story of {reason}")
    assert time.monotonic() - begun < TOLD
    story = ask(admin, f"/connections/{row['id']}")
    assert story == {"format": "echod-connection/1", **row, "opened": story["opened"]}
    return row


def events(row: dict[str, Any]) -> list[dict[str, Any]]:
    """What the timeline has, but for silences."""
    assert row["timeline"]["fell_out"] == 0
    found = row["timeline"]["events"]
    assert all(event["us"] >= 1e6 for event in found if event["event"] == "quiet")
    return [event for event in found if event["event"] != "quiet"]


def wordsOf(end: End, way: str) -> list[str]:
    """What the timeline must have: what comes before the protocol depends on the way."""
    before = ["open"]
    spoke = end.words.startswith("first")
    if way.startswith("proxied") and end.told[0] not in ("header", "handshake"):
        before.append("header")
    if way not in ("tcp", "unix") and spoke:
        before.append("handshake")
    return [*before, *end.words.split()]


def checkTimes(row: dict[str, Any], took: float) -> None:
    """
    Times go on, and all of it has happened while the test looked on.

    :param took: seconds from before it connected until it had the story.
    """
    told = events(row)
    times = [event["at"] for event in told]
    assert times[0] == 0
    assert times == sorted(times)
    assert all(event.get("until", event["at"]) <= times[-1] for event in told)
    assert times[-1] <= took * 1e6
    assert abs(row["seconds"] - times[-1] / 1e6) <= 1e-5


def checkDeadline(row: dict[str, Any], name: str) -> None:
    """The deadline that led to the end has passed in its time."""
    by = {event["event"]: event for event in events(row)}
    assert by["deadline"]["reason"] == name
    since = {
        "idle": by.get("write"),
        "stall": by.get("write"),
        "linger": by.get("our_fin"),
    }.get(name) or by["open"]
    begun = since.get("until", since["at"])
    seconds = (by["deadline"]["at"] - begun) / 1e6
    # An age and a handshake's time begin with the connection, however long that takes to talk.
    assert SOON - EARLY <= seconds <= SOON + LATE


def checkEnd(row: dict[str, Any], end: End) -> None:
    """Reason, end, who did it: once in the row, and once more in the timeline."""
    reason, how, by = end.told
    assert (row["reason"], row["end"], row["ended_by"]) == (reason, how, by)
    told = {event["event"]: event for event in events(row)}
    assert told["end"]["reason"] == how
    if "ending" in told:
        assert told["ending"]["reason"] == reason
    if "rst" in told:
        assert told["rst"]["reason"] == by


def checkBytes(row: dict[str, Any], expected: tuple[int, int] | None) -> None:
    """What was counted is what the client made; and what the timeline has of reads and writes."""
    counted = row["bytes_in"], row["bytes_out"]
    if expected is not None:
        assert counted == expected
        assert row["owed"] == 0
    else:
        assert counted[0] == counted[1]
        assert 0 < row["owed"] <= row["bytes_out"]
    for word, key in (("read", "bytes_in"), ("write", "bytes_out")):
        assert sum(event["bytes"] for event in events(row) if event["event"] == word) == row[key]


def check(row: dict[str, Any], end: End, way: str, took: float) -> None:
    """Everything that is told of a connection; see `checkTimes`."""
    checkEnd(row, end)
    words = " ".join(event["event"] for event in events(row))
    # The echo of much that comes at once may be told in two or three parts.
    assert re.sub("(read write )+", "read write ", words).split() == wordsOf(end, way)
    checkTimes(row, took)


@pytest.mark.parametrize(("name", "way"), CASES)
def test_ends(scene: Scene, certificates: Certificates, name: str, way: str) -> None:
    """All that is told of one that is gone."""
    end, place = ENDS[name], scene.places[name, way]
    begun = time.monotonic()
    source = {"refused": DENIED, "no_header": None, "handshake": None}.get(name, CLIENT)
    client = Client(way, place.address, certificates, source)
    with contextlib.closing(client):
        end.play(client)
        row = storyOf(scene.admin, place.name, end.told[0])
    check(row, end, way, time.monotonic() - begun)
    if name in DEADLINES:
        checkDeadline(row, name)
    checkBytes(row, (10, 10) if name == "peer_rst" and "unix" in way else end.bytes)
    if client.name:
        assert row["peer"] == client.name


@pytest.mark.parametrize("way", WAYS)
def test_drain(tmp_path: Path, certificates: Certificates, way: str) -> None:
    """A drain's ends are told while it goes on: what serves them closes last."""
    end = End(waiting, ("drain", "fin", "us"), f"{TALK} ending our_fin peer_fin end", protocol=RAW)
    admin = tmp_path / "admin"
    # Whoever does not finish keeps a drain from its end.
    keeper = {"endpoint": "tcp:0:interface=127.0.0.1", "linger_timeout": DRAIN}
    config = configured(
        tmp_path,
        table(end, way, tmp_path / "echod", certificates),
        {**RAW, **keeper},
        {"protocol": "admin", "endpoint": f"unix:{admin}"},
        drain_timeout=DRAIN,
    )
    with LoadedDaemon(config) as daemon, contextlib.ExitStack() as stack:
        places = placesOf(admin, [way, "keeper"])
        begun = time.monotonic()
        clients = []
        for name, place in places.items():
            clients.append(Client(name, place.address, certificates))
            stack.callback(clients[-1].close)
            clients[-1].begin()
            clients[-1].ping()
        daemon.signal(signal.SIGTERM)
        assert clients[0].untilEnd() == "FIN"
        clients[0].finish()
        row = storyOf(admin, places[way].name, "drain")
        check(row, end, way, time.monotonic() - begun)
        checkBytes(row, end.bytes)
        (keeps,) = ask(admin, "/connections?listener=raw")["connections"]
        assert (keeps["state"], keeps["reason"]) == ("lingering", "drain")


#: Has its first answer; the second one is lost, and so it is each time that it is sent.
LOSER = """
import socket, sys
client = socket.create_connection(("127.0.0.1", 1234))
client.sendall(b"hello\\n")
assert client.recv(6, socket.MSG_WAITALL) == b"hello\\n"
client.sendall(bytes(500))
sys.stdin.read()
"""


@needsRoot
@pytest.mark.skipif(shutil.which("nft") is None, reason="there is no nft(8) (package: nftables)")
def test_network(tmp_path: Path) -> None:
    """Nobody acknowledges what was sent: after a few times the kernel gives up, with ETIMEDOUT."""
    end = End(lingering, ("reset", "rst", "network"), f"{TALK} rst end", bytes=(506, 506))
    rules = (
        "sysctl -qw net.ipv4.tcp_retries2=2",
        "nft add table inet t",
        "nft add chain inet t i { type filter hook input priority 0 ; }",
        "nft add rule inet t i tcp sport 1234 ip length > 500 drop",
    )
    admin = tmp_path / "admin"
    words = ["--port", "1234", "--admin", f"unix:{admin}"]
    with namespace(*rules) as prefix, Daemon(*words, command=[*prefix, *MODULE]):
        begun = time.monotonic()
        command = [*prefix, *MODULE[:1], "-c", LOSER]
        with subprocess.Popen(command, stdin=subprocess.PIPE) as client:
            row = storyOf(admin, "raw tcp 127.0.0.1:1234", "reset")
            assert client.stdin is not None
            client.stdin.close()
    check(row, end, "tcp", time.monotonic() - begun)
    assert (row["bytes_in"], row["bytes_out"]) == end.bytes
