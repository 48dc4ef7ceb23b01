"""
What is measured, and against whom: the rows and the peers, as data.

A `Row` is one load and the servers that carry it in turn; its `Target` values are the figures
that echod must reach, and those that it would like to.  Figures are in SI units: seconds, bytes,
and counts a second; a ratio has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from benchmarks.units import size

__all__ = ["BEFORE", "ECHOD", "PEERS", "ROWS", "Peer", "Row", "Target", "chooseRows", "withBefore"]

Pattern = Literal["raw", "line", "frame"]
Mode = Literal["pingpong", "bulk", "churn", "idle", "stalled", "flood"]
Along = Literal["", "connections", "message"]

ECHOD = "echod"
#: echod of an earlier commit; rows have it where that is asked for.
BEFORE = "before"


@dataclass(frozen=True)
class Peer:
    """
    An echo server.

    :ivar title: how tables name it.
    :ivar command: how it is started; ``{python}`` is this interpreter, ``{build}`` the folder
        of what was compiled, ``{here}`` this package, ``{port}`` a free port, ``{pattern}`` and
        ``{listener}`` what the row wants echoed and echod's option for that, ``{place}`` where
        that listens.  ``{pem}`` is a file with the certificate and its key, in rows with TLS;
        in others it is left out.
    :ivar needs: what must be there: a program, or a Python package after ``python:``.
    :ivar forks: whether it makes processes, whose cost is counted too.
    :ivar checkBytes: how much is echoed at once to see whether it works.
    :ivar isEchod: whether it is started with a row's options for echod.
    :ivar folder: where it is started; the project's folder, unless said.
    """

    title: str
    command: tuple[str, ...]
    needs: tuple[str, ...] = ()
    forks: bool = False
    checkBytes: int = 200_000
    isEchod: bool = False
    folder: str = ""


def _python(module: str, *arguments: str) -> tuple[str, ...]:
    return ("{python}", "-m", f"benchmarks.peers.{module}", *arguments)


_ECHOD = Peer(
    "**echod**",
    ("{python}", "-m", "echod", "{listener}", "{place}"),
    ("python:msgspec", "python:twisted"),
    isEchod=True,
)

#: For as many connections as fit into 20 000 descriptors where two listeners may have as many.
_MANY = ("--max-connections", "9200")

PEERS: dict[str, Peer] = {
    ECHOD: _ECHOD,
    BEFORE: replace(_ECHOD, title="echod, before"),
    "echod-in-place": replace(
        _ECHOD,
        title="echod, in place",
        command=(*_ECHOD.command, "--option", "raw.in_place=true"),
    ),
    "unwatched": replace(
        _ECHOD,
        title="echod, without `admin`",
        command=(*_ECHOD.command, *_MANY),
        isEchod=False,
    ),
    "c": Peer("C, epoll", ("{build}/epoll_echo", "{port}", "4096"), ("gcc",)),
    "c-64k": Peer("C, epoll, 64 KiB buffers", ("{build}/epoll_echo", "{port}", "65536"), ("gcc",)),
    "asyncio": Peer("asyncio Protocol", _python("aio", "asyncio", "plain", "{port}", "{pem}")),
    "uvloop": Peer(
        "uvloop Protocol", _python("aio", "uvloop", "plain", "{port}", "{pem}"), ("python:uvloop",)
    ),
    "asyncio-flow": Peer("asyncio, flow control", _python("aio", "asyncio", "flow", "{port}")),
    "uvloop-flow": Peer(
        "uvloop, flow control", _python("aio", "uvloop", "flow", "{port}"), ("python:uvloop",)
    ),
    "asyncio-streams": Peer(
        "asyncio streams", _python("streams", "asyncio", "{pattern}", "{port}")
    ),
    "uvloop-streams": Peer(
        "asyncio streams on uvloop",
        _python("streams", "uvloop", "{pattern}", "{port}"),
        ("python:uvloop",),
    ),
    "twisted": Peer(
        "Twisted `Echo`", _python("twisted_echo", "raw", "{port}", "{pem}"), ("python:twisted",)
    ),
    "twisted-line": Peer(
        "Twisted `LineOnlyReceiver`", _python("twisted_echo", "line", "{port}"), ("python:twisted",)
    ),
    "twisted-int16": Peer(
        "Twisted `Int16StringReceiver`",
        _python("twisted_echo", "frame", "{port}"),
        ("python:twisted",),
    ),
    **{
        f"way-{way}": Peer(
            title, _python("ways", way, "{port}"), ("python:msgspec", "python:twisted")
        )
        for way, title in (
            ("coroutine", "echod, a coroutine"),
            ("function", "echod, a framing and a function"),
            ("factory", "echod, Twisted's `LineOnlyReceiver`"),
        )
    },
    "gevent": Peer("gevent", _python("gevent_echo", "{port}"), ("python:gevent",)),
    "node": Peer("Node `net`", ("node", "{here}/peers/echo.js", "{port}"), ("node",)),
    "go": Peer("Go `io.Copy`", ("{build}/echo_go", "{port}", "{pem}"), ("go",)),
    "socat": Peer(
        "socat",
        ("socat", "TCP4-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork,backlog=4096", "PIPE"),
        ("socat",),
        forks=True,
        # It blocks writing to its pipe (64 KiB) while the client's end is full too.
        checkBytes=4096,
    ),
    "ncat": Peer(
        "ncat -e cat",
        ("ncat", "-4", "-l", "-k", "-e", "/bin/cat", "127.0.0.1", "{port}"),
        ("ncat",),
        forks=True,
        checkBytes=4096,
    ),
}


@dataclass(frozen=True)
class Target:
    """
    A figure to reach.

    :ivar metric: which one; see `Row.metrics`.
    :ivar against: peers; the ratio is to the best of them in each repetition.  With none, the
        figure stands for itself.
    :ivar must: what it may not exceed; ``goal``: what it should not, where there is such a
        figure.
    :ivar larger: the other way round: what it must and should reach.
    """

    metric: str
    against: tuple[str, ...]
    must: float
    goal: float | None = None
    larger: bool = False


@dataclass(frozen=True)
class Row:
    """
    One load, and who carries it.

    :ivar unit: what is counted, and divides the CPU time: message, byte, line, handshake, ...
    :ivar metrics: what tables show, the first one also the chart: ``cpu`` (s of the server's CPU
        a unit), ``rate`` (units a second of wall clock), ``p50`` and ``p99`` (latency, s),
        ``alone50`` and ``alone99`` (before the flood), ``times`` (``p50`` over ``alone50``),
        ``memory`` (bytes of resident memory a connection), ``sent`` (bytes a stalled client
        got rid of), ``pipes`` (bytes of the server's pipes that hold something, a connection).
    :ivar message: bytes of one; ``block`` × ``flight`` bytes are under way on each connection.
    :ivar tiny: bytes of one message of a flood.
    :ivar spin: whether the generator polls rather than sleeps, so that its own waking up is not
        measured.
    :ivar fresh: whether each repetition gets a new server: memory is not given back.
    :ivar halfCloses: whether clients half-close, in ``churn``; it is checked before.
    :ivar tls: whether it is over TLS.
    :ivar options: for echod, what this many connections need; defaults otherwise.
    :ivar along: which of the row's figures is the horizontal axis of the curve that the picture
        draws of all such rows; without one, the row gets bars.
    """

    name: str
    title: str
    mode: Mode
    peers: tuple[str, ...]
    metrics: tuple[str, ...]
    unit: str = "message"
    targets: tuple[Target, ...] = ()
    pattern: Pattern = "raw"
    connections: int = 1
    message: int = 64
    block: int = 65536
    flight: int = 1
    tiny: int = 2
    most: int = 16 << 20
    spin: bool = False
    fresh: bool = False
    halfCloses: bool = False
    tls: bool = False
    options: tuple[str, ...] = ()
    along: Along = ""

    @property
    def measuresMemory(self) -> bool:
        """Whether memory is looked at when all are connected, and nothing is done after that."""
        return self.metrics[0] == "memory"

    def keys(self, seconds: float) -> dict[str, object]:
        """The load generator's keys, for a run of so many seconds."""
        return {
            "connections": self.connections,
            "message": self.message,
            "block": self.block,
            "flight": self.flight,
            "tiny": self.tiny,
            "most": self.most,
            "seconds": seconds,
            "spin": int(self.spin),
            "half": int(self.halfCloses),
            "pattern": self.pattern,
        }


_CPU = ("cpu", "rate", "p50", "p99")
_FLOOD = ("p50", "p99", "alone50", "alone99", "times", "rate")
#: The issue's bounds for a client among floods: times its own latency alone, and seconds.
_FAIR = (Target("times", (), 10, 4), Target("p99", (), 0.025, 0.010))
_FAST = ("asyncio", "uvloop", "go")
#: Those that hold no more than some buffers of a client that does not read.
_CAREFUL = ("asyncio-flow", "uvloop-flow", "go")
_TLS = (ECHOD, "asyncio", "uvloop", "twisted", "go")
_KIB = 1024


def _growth(connections: int) -> Row:
    return Row(
        name=f"growth-{connections}",
        title=f"raw, 64 B ping-pong, {connections} connections",
        mode="pingpong",
        connections=connections,
        peers=(ECHOD, "c", "asyncio", "uvloop"),
        metrics=_CPU,
        options=() if connections <= 1000 else ("--max-connections", str(connections + 100)),
        along="connections",
    )


def _shape(connections: int, kib: int, flight: int = 1) -> Row:
    """
    Bulk in one shape: so many connections, KiB of a message, messages under way on each.

    With one under way the next message waits for the whole echo.
    """
    length = kib * _KIB
    name = f"shapes-{connections}x{'1m' if kib == 1024 else f'{kib}k'}"
    targets: tuple[Target, ...] = ()
    if kib >= 64:
        targets = (Target("cpu", _CAREFUL, 1.00, 0.80),)
    elif kib >= 16:
        targets = (Target("cpu", _CAREFUL, 1.10, 1.00),)
    return Row(
        name=name if flight == 1 else f"{name}-{flight}",
        title=f"raw, {connections} × {size(length)} × {flight} in flight",
        mode="pingpong" if flight == 1 else "bulk",
        connections=connections,
        message=length,
        block=length,
        flight=flight,
        unit="byte",
        peers=(ECHOD, "echod-in-place", "c-64k", *_CAREFUL),
        metrics=("cpu", "rate"),
        targets=targets,
        along="message" if flight == 1 and connections == 50 else "",
    )


def _middle(kib: int, connections: int) -> Row:
    return Row(
        name=f"middle-{kib}k-{connections}",
        title=f"raw, {kib} KiB ping-pong, {connections} connections",
        mode="pingpong",
        connections=connections,
        message=kib * _KIB,
        peers=(ECHOD, "c-64k", "asyncio", "uvloop", "go"),
        metrics=_CPU,
        targets=(Target("cpu", ("uvloop",), 1.10, 1.00),),
    )


_ALONE: tuple[Row, ...] = (
    Row(
        name="raw-50",
        title="raw, 64 B ping-pong, 50 connections",
        mode="pingpong",
        connections=50,
        peers=(
            ECHOD,
            "c",
            "asyncio",
            "uvloop",
            "asyncio-streams",
            "uvloop-streams",
            "twisted",
            "gevent",
            "node",
            "go",
            "socat",
            "ncat",
        ),
        metrics=_CPU,
        targets=(
            Target("cpu", ("uvloop",), 1.08, 1.02),
            Target("cpu", ("asyncio",), 0.92, 0.80),
            Target("cpu", ("go",), 1.05, 0.95),
            Target("cpu", ("twisted",), 0.35, 0.30),
            Target("cpu", ("c",), 1.40, 1.20),
        ),
    ),
    Row(
        name="raw-500",
        title="raw, 64 B ping-pong, 500 connections",
        mode="pingpong",
        connections=500,
        peers=(ECHOD, "c", "asyncio", "uvloop", "twisted", "gevent", "node", "go"),
        metrics=_CPU,
        targets=(Target("cpu", ("uvloop",), 1.00, 0.85),),
    ),
    Row(
        name="raw-1",
        title="raw, 64 B ping-pong, 1 connection",
        mode="pingpong",
        spin=True,
        peers=(ECHOD, "c", "asyncio", "uvloop", "twisted", "gevent", "node", "go", "socat"),
        metrics=_CPU,
        targets=(
            Target("cpu", ("asyncio",), 1.10, 0.95),
            Target("p50", ("asyncio",), 1.10, 1.00),
        ),
    ),
    Row(
        name="bulk",
        title="raw bulk, 4 × 64 KiB × 16 in flight",
        mode="bulk",
        connections=4,
        flight=16,
        unit="byte",
        peers=(
            ECHOD,
            "c-64k",
            "asyncio",
            "uvloop",
            "asyncio-streams",
            "uvloop-streams",
            "twisted",
            "gevent",
            "node",
            "go",
        ),
        metrics=("cpu", "rate"),
        targets=(
            Target("cpu", _FAST, 0.90, 0.75),
            Target("rate", _FAST, 1.00, 1.25, larger=True),
            Target("rate", ("c-64k",), 1.30, 1.60, larger=True),
        ),
    ),
    # 8 KiB to 1 MiB with one under way on each of 50 connections, and other shapes.
    *(_shape(50, kib) for kib in (8, 16, 32, 64, 128, 256, 512, 1024)),
    _shape(16, 64, 4),
    _shape(4, 16, 16),
    _shape(4, 64, 16),
    _shape(1, 64, 16),
    _shape(2, 1024),
    *(_middle(kib, connections) for connections in (50, 200) for kib in (1, 4, 8)),
    Row(
        name="lines",
        title="pipelined 64-byte lines, 4 connections × 64 KiB in flight",
        mode="bulk",
        pattern="line",
        connections=4,
        block=16384,
        flight=4,
        unit="line",
        peers=(ECHOD, "twisted-line", "asyncio-streams", "uvloop-streams"),
        metrics=("cpu", "rate"),
        targets=(
            Target("cpu", ("twisted-line",), 0.22, 0.16),
            Target("cpu", ("uvloop-streams",), 0.05, 0.04),
        ),
    ),
    Row(
        name="frames",
        title="pipelined 64-byte frames, 4 connections × 64 KiB in flight",
        mode="bulk",
        pattern="frame",
        connections=4,
        block=16384,
        flight=4,
        unit="frame",
        peers=(ECHOD, "twisted-int16", "asyncio-streams", "uvloop-streams"),
        metrics=("cpu", "rate"),
        targets=(Target("cpu", ("twisted-int16",), 0.22, 0.16),),
    ),
    Row(
        name="ways",
        title="64-byte lines, ping-pong, 50 connections: the ways to write a protocol",
        mode="pingpong",
        pattern="line",
        connections=50,
        unit="line",
        peers=(
            ECHOD,
            *("way-coroutine", "way-function", "way-factory"),
            *("twisted-line", "asyncio-streams", "uvloop-streams"),
        ),
        metrics=_CPU,
        # The coroutine may cost three times the class, the goal is twice.
        targets=(Target("cpu", ("way-coroutine",), 1 / 3, 1 / 2, larger=True),),
    ),
    Row(
        name="churn",
        title="connect, 64 B, half-close, EOF; 50 at a time",
        mode="churn",
        connections=50,
        unit="connection",
        halfCloses=True,
        peers=(ECHOD, "c", "asyncio", "uvloop", "gevent", "node", "go"),
        metrics=("cpu", "rate"),
        targets=(
            Target("cpu", ("uvloop",), 1.30, 1.10),
            Target("cpu", ("asyncio",), 0.90, 0.60),
            Target("cpu", ("node",), 0.90, 0.60),
        ),
    ),
    Row(
        name="idle",
        title="memory an idle connection, 10 000 of them",
        mode="idle",
        connections=10_000,
        unit="connection",
        fresh=True,
        peers=(ECHOD, "c", "asyncio", "uvloop", "twisted", "gevent", "node", "go"),
        metrics=("memory",),
        targets=(Target("memory", ("asyncio",), 1.2, 0.7),),
        options=("--max-connections", "10100"),
    ),
    Row(
        name="flood-bulk",
        title="a ping-pong client while 8 others flood with 64 KiB blocks",
        mode="flood",
        connections=8,
        flight=128,
        unit="byte",
        # Not a tiny one: bytes are counted.
        tiny=1,
        peers=(ECHOD, "asyncio", "uvloop", "twisted", "node", "go"),
        metrics=_FLOOD,
        targets=_FAIR,
    ),
    Row(
        name="flood-lines",
        title="a ping-pong client while 8 others flood with 2-byte lines",
        mode="flood",
        pattern="line",
        connections=8,
        flight=128,
        unit="line",
        peers=(ECHOD, "twisted-line", "uvloop-streams"),
        metrics=_FLOOD,
        targets=_FAIR,
    ),
    Row(
        name="flood-frames",
        title="a ping-pong client while 8 others flood with 2-byte frames",
        mode="flood",
        pattern="frame",
        connections=8,
        flight=128,
        unit="frame",
        peers=(ECHOD, "twisted-int16", "uvloop-streams"),
        metrics=_FLOOD,
        targets=_FAIR,
    ),
    Row(
        name="stalled",
        title="a client that sends and never reads: the memory it costs",
        mode="stalled",
        connections=50,
        unit="connection",
        fresh=True,
        peers=(
            *(ECHOD, "c", "asyncio", "asyncio-flow", "uvloop-flow"),
            *("asyncio-streams", "twisted", "node", "go"),
        ),
        metrics=("memory", "sent", "pipes"),
        targets=(
            Target("memory", (), 256 * _KIB, 128 * _KIB),
            Target("pipes", (), 256 * _KIB),
        ),
    ),
    Row(
        name="tls-50",
        title="TLS, 64 B ping-pong, 50 connections",
        mode="pingpong",
        tls=True,
        connections=50,
        peers=_TLS,
        metrics=_CPU,
        targets=(
            Target("cpu", ("twisted",), 0.70),
            Target("cpu", ("asyncio",), 0.90),
            Target("cpu", ("uvloop",), 1.10),
        ),
    ),
    Row(
        name="tls-64k",
        title="TLS, 64 KiB ping-pong, 50 connections",
        mode="pingpong",
        tls=True,
        connections=50,
        message=65536,
        peers=_TLS,
        metrics=_CPU,
        targets=(Target("cpu", ("asyncio",), 0.90),),
    ),
    Row(
        name="tls-handshakes",
        title="TLS: connect, full handshake, 64 B, close; 50 at a time",
        mode="churn",
        tls=True,
        connections=50,
        unit="handshake",
        peers=_TLS,
        metrics=("cpu", "rate"),
    ),
    Row(
        name="tls-idle",
        title="TLS: memory an idle connection, 1000 of them",
        mode="idle",
        tls=True,
        connections=1000,
        unit="connection",
        fresh=True,
        peers=_TLS,
        metrics=("memory",),
        options=("--max-connections", "1100"),
    ),
)


def _watched(row: Row) -> Row:
    """
    The row with an ``admin`` listener, so that each connection has a timeline, beside one without.

    Each turn has new processes, as in the gate: two of one program may differ by some percent.
    """
    return replace(
        row,
        name=f"watched-{row.name}",
        title=f"with an `admin` listener: {row.title}",
        peers=(ECHOD, "unwatched"),
        targets=(Target("cpu", ("unwatched",), 1.05),),
        options=("--admin", "tcp:0", *_MANY),
        fresh=True,
    )


def _watchedIdle(row: Row) -> Row:
    return replace(
        _watched(row),
        title="with an `admin` listener: memory an idle connection, 9000 of them",
        connections=9000,
        # 0.7 KiB (717 bytes) more than the 1332 bytes of one that nobody can ask about.
        targets=(Target("memory", ("unwatched",), (1332 + 717) / 1332),),
    )


_BY_NAME = {row.name: row for row in _ALONE}

ROWS: tuple[Row, ...] = (
    *_ALONE,
    *(_watched(_BY_NAME[name]) for name in ("raw-50", "churn", "lines", "bulk")),
    _watchedIdle(_BY_NAME["idle"]),
    *(_growth(count) for count in (1, 10, 100, 1000, 5000, 10_000, 15_000)),
)


def chooseRows(words: Sequence[str]) -> list[Row]:
    """
    The rows of these names, or of names that begin with them and a dash; all for no words.

    :raises ValueError: for a word that is none, naming those there are.
    """
    for word in words:
        if not any(row.name == word or row.name.startswith(f"{word}-") for row in ROWS):
            names = ", ".join(row.name for row in ROWS)
            raise ValueError(f"{word!r} is no row; there are: {names}")
    return [
        row
        for row in ROWS
        if not words or any(row.name == word or row.name.startswith(f"{word}-") for word in words)
    ]


def withBefore(row: Row) -> Row:
    """The row with echod of an earlier commit beside echod."""
    first, *others = row.peers
    return replace(row, peers=(first, BEFORE, *others))
