"""`benchmarks`: its pure parts.  No server is started, no generator is compiled."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast
from xml.etree import ElementTree

import pytest

import benchmarks
from benchmarks import congestion
from benchmarks.chart import chart
from benchmarks.congestion import CongestionError
from benchmarks.figures import (
    Estimate,
    RowResult,
    Sample,
    estimate,
    judge,
    ratios,
    spread,
    verdicts,
)
from benchmarks.gate import AGAIN, BASE, NAMES, checkOut, gateRow, gateRows, peersOf, table, word
from benchmarks.insight import Figure, configuration, tableOf
from benchmarks.load import LoadError, parseLine, parseOutcome
from benchmarks.measure import childrenTicks, pipeBytes, totalKilobytes
from benchmarks.peers.aio import Echo, FlowEcho
from benchmarks.report import bound, json_, markdown
from benchmarks.rows import BEFORE, ECHOD, PEERS, ROWS, Row, Target, chooseRows, withBefore
from benchmarks.run import chooseCPUs, turns
from benchmarks.servers import ServerError, commandOf, message
from benchmarks.units import axis, number, show, size


def invented(row: Row, figure: float, times: int = 3) -> list[Sample]:
    """Samples with every metric of a row."""
    names = {*row.metrics, *(target.metric for target in row.targets), "busy", "generator"}
    return [dict.fromkeys(names, figure * (1 + index / 10)) for index in range(times)]


def results(rows: Sequence[Row] = ROWS) -> list[RowResult]:
    """Every row with invented samples, and a peer of each that failed."""
    made = []
    for row in rows:
        result = RowResult(row)
        for index, peer in enumerate(row.peers):
            result.samples[peer] = invented(row, 1e-6 * (index + 1))
        result.failures["ncat"] = "it is <broken> & | so on"
        made.append(result)
    return made


# -- Rows and peers ------------------------------------------------------------------------


def test_rowsReferToPeers() -> None:
    """Each row has echod and peers that exist, and is judged against peers that it runs."""
    for row in ROWS:
        assert row.peers[0] == ECHOD
        assert set(row.peers) <= set(PEERS)
        assert len(set(row.peers)) == len(row.peers)
        for target in row.targets:
            assert set(target.against) <= set(row.peers) - {ECHOD}
            assert target.goal is None or (target.goal > target.must) is target.larger
    assert len({row.name for row in ROWS}) == len(ROWS)
    assert {peer for row in ROWS for peer in row.peers} == set(PEERS) - {BEFORE}


def test_rowsAreWhole() -> None:
    """Blocks hold whole messages, and every metric has a name."""
    for row in ROWS:
        assert row.block % row.message == 0
        assert row.block % row.tiny == 0
        assert not row.halfCloses or row.mode == "churn"
        for metric in (*row.metrics, *(target.metric for target in row.targets)):
            assert axis(metric, row.unit)
            assert show(metric, row.unit, 1e-6)


def test_commandsAreThere() -> None:
    """Programs of peers are files of the package, and placeholders are known ones."""
    here = Path(benchmarks.__file__).parent
    known = {"python", "build", "here", "port", "pattern", "listener", "place", "pem"}
    for peer in PEERS.values():
        command = " ".join(peer.command)
        assert set(re.findall(r"{(\w+)}", command)) <= known
        assert "{port}" in command or "{listener} {place}" in command
        for module in re.findall(r"benchmarks\.peers\.(\w+)", command):
            assert (here / "peers" / f"{module}.py").is_file()
        for name in re.findall(r"{here}/(\S+)", command):
            assert (here / name).is_file()


def test_rowsWithTLS() -> None:
    """Every server of such a row is told the certificate, and none of another row is."""
    for row in ROWS:
        for peer in row.peers:
            command = " ".join(commandOf(PEERS[peer], row.pattern, 1234, "/b", row.tls * "/c.pem"))
            assert ("/c.pem" in command) is row.tls, (row.name, peer)


def test_commandOf() -> None:
    """Without TLS a port, and no empty word; with it echod gets an endpoint, a peer one word."""
    own, peer = PEERS[ECHOD], PEERS["go"]
    assert commandOf(own, "line", 7, "/b")[1:] == ["-m", "echod", "--line-port", "7"]
    place = "tls:7:interface=127.0.0.1:cert=/c.pem:key=/c.pem"
    assert commandOf(own, "raw", 7, "/b", "/c.pem")[-2:] == ["--port", place]
    assert commandOf(peer, "raw", 7, "/b") == ["/b/echo_go", "7"]
    assert commandOf(peer, "raw", 7, "/b", "/c.pem") == ["/b/echo_go", "7", "/c.pem"]


def test_shapes() -> None:
    """Bulk in each shape, judged against peers with flow control; 8 KiB to 1 MiB are a curve."""
    shapes = {row.name: row for row in chooseRows(["shapes"])}
    for name, load in {
        "shapes-50x64k": ("pingpong", 50, 65536, 1),
        "shapes-50x16k": ("pingpong", 50, 16384, 1),
        "shapes-16x64k-4": ("bulk", 16, 65536, 4),
        "shapes-4x16k-16": ("bulk", 4, 16384, 16),
        "shapes-4x64k-16": ("bulk", 4, 65536, 16),
        "shapes-1x64k-16": ("bulk", 1, 65536, 16),
        "shapes-2x1m": ("pingpong", 2, 1 << 20, 1),
        "shapes-50x8k": ("pingpong", 50, 8192, 1),
    }.items():
        row = shapes[name]
        assert (row.mode, row.connections, row.message, row.flight) == load
        assert row.block == row.message
    for row in shapes.values():
        assert row.metrics[0] == "cpu"
        assert row.unit == "byte"
        bounds = [(target.against, target.must, target.goal) for target in row.targets]
        against = ("asyncio-flow", "uvloop-flow", "go")
        if row.message >= 65536:
            assert bounds == [(against, 1.00, 0.80)]
        elif row.message >= 16384:
            assert bounds == [(against, 1.10, 1.00)]
        else:
            assert bounds == []
        assert "echod-in-place" in row.peers
    words = commandOf(PEERS["echod-in-place"], "raw", 7, "/b")
    assert words[-3:] == ["7", "--option", "raw.in_place=true"]
    curve = [row.message for row in shapes.values() if row.along == "message"]
    assert curve == [8192 << step for step in range(8)]


def test_middleSizes() -> None:
    """1, 4 and 8 KiB, 50 and 200 connections, beside uvloop."""
    rows = chooseRows(["middle"])
    assert {(row.message, row.connections) for row in rows} == {
        (kib * 1024, connections) for kib in (1, 4, 8) for connections in (50, 200)
    }
    for row in rows:
        assert row.targets == (Target("cpu", ("uvloop",), 1.10, 1.00),)


def test_watched() -> None:
    """The load of another row; one has an admin listener, and nothing else differs."""
    rows = {row.name: row for row in chooseRows(["watched"])}
    names = ("raw-50", "churn", "lines", "bulk", "idle")
    assert list(rows) == [f"watched-{name}" for name in names]
    for name in names:
        (alone,) = chooseRows([name])
        row = rows[f"watched-{name}"]
        assert (row.peers, row.fresh) == ((ECHOD, "unwatched"), True)
        other = replace(alone, connections=row.connections)
        assert row.keys(2) == other.keys(2)
        watched = [*commandOf(PEERS[ECHOD], row.pattern, 7, "/b"), *row.options]
        assert not PEERS["unwatched"].isEchod
        unwatched = commandOf(PEERS["unwatched"], row.pattern, 7, "/b")
        at = watched.index("--admin")
        assert [*watched[:at], *watched[at + 2 :]] == unwatched


def test_tableOf() -> None:
    """A figure with a target is judged; the least that misses one is told."""
    text = tableOf(
        [
            Figure("told", 0.0123),
            Figure("just", 0.150, must=0.150),
            Figure("late", 0.1501, must=0.150),
            Figure("big", 9 << 20, "B", 8 << 20),
            Figure("many", 10000, ""),
        ]
    )
    assert text.splitlines()[2:] == [
        "| told | 12.30 ms |  |  |",
        "| just | 150.00 ms | 150.00 ms | met |",
        "| late | 150.10 ms | 150.00 ms | **missed** |",
        "| big | 9,216 KiB | 8,192 KiB | **missed** |",
        "| many | 10000 |  |  |",
    ]


def test_insightConfiguration() -> None:
    """Five listeners, and one to be asked; as many connections fit into 20 000 descriptors."""
    for path, count in ((None, 5), ("/run/a.sock", 6)):
        tables = tomllib.loads(configuration(path))["listener"]
        assert len(tables) == count
        assert sum(table["max_connections"] for table in tables) < 20_000
        assert tables[0]["max_connections"] > 10_000


def test_flowControl() -> None:
    """The peer with flow control reads nothing while the transport has too much to send."""
    said: list[str] = []

    class Transport:
        def pause_reading(self) -> None:
            said.append("pause")

        def resume_reading(self) -> None:
            said.append("resume")

    for kind, expected in ((FlowEcho, ["pause", "resume"]), (Echo, [])):
        said.clear()
        echo = kind()
        echo.connection_made(cast("asyncio.BaseTransport", Transport()))
        echo.pause_writing()
        echo.resume_writing()
        assert said == expected


def test_before() -> None:
    """An earlier echod is started as echod is, and stands right behind it in the tables."""
    row = withBefore(next(iter(ROWS)))
    assert row.peers == (ECHOD, BEFORE, *ROWS[0].peers[1:])
    assert commandOf(PEERS[BEFORE], "raw", 7, "/b") == commandOf(PEERS[ECHOD], "raw", 7, "/b")
    assert PEERS[BEFORE].isEchod
    result = RowResult(row, {ECHOD: cpu(1e-6), BEFORE: cpu(2e-6)})
    for samples in result.samples.values():
        samples[0] = {**samples[0], **dict.fromkeys(("rate", "p50", "p99", "busy", "generator"), 1)}
    assert "| echod, before | 2.00 µs" in markdown([result], {}, {})
    assert "echod, before" in chart([result])


def test_chooseRows() -> None:
    """A name, or the beginning of several; all for none; a wrong one is named."""
    assert chooseRows([]) == list(ROWS)
    assert [row.name for row in chooseRows(["raw-1", "flood"])] == [
        "raw-1",
        "flood-bulk",
        "flood-lines",
        "flood-frames",
    ]
    with pytest.raises(ValueError, match="'ra' is no row; there are: raw-50"):
        chooseRows(["ra"])


# -- What the generator and the kernel say -------------------------------------------------


def test_parseOutcome() -> None:
    """Nanoseconds become seconds; latencies are kept by name."""
    outcome = parseOutcome(
        '{"count": 10, "bytes": 640, "short": 1, "wall": 2000000000, "cpu": 500000000,'
        ' "alone_samples": 9, "alone_p50": 1000, "samples": 10, "p50": 2000, "p99": 3000}\n'
    )
    assert (outcome.count, outcome.bytes, outcome.short) == (10, 640, 1)
    assert (outcome.wall, outcome.cpu) == (2.0, 0.5)
    assert outcome.latency == {"alone_p50": 1e-6, "p50": 2e-6, "p99": 3e-6}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"error": "connect: refused"}\n', "^connect: refused$"),
        ("", "ended early"),
        ('{"count": 1', "ended early"),
        ("3\n", "wrote '3'"),
    ],
)
def test_parseLineRefuses(text: str, why: str) -> None:
    """An error, silence, half a line and another thing each say what happened."""
    with pytest.raises(LoadError, match=why):
        parseLine(text)


def test_parseOutcomeMisses() -> None:
    """A result without one of its figures is none."""
    with pytest.raises(LoadError, match="did not say 'bytes'"):
        parseOutcome('{"count": 1}')


def test_kernelFiles() -> None:
    """Children's ticks are found behind any process name; Rss among its neighbours."""
    fields = " ".join(str(number) for number in range(4, 53))
    assert childrenTicks(f"12 (a) b (c)) S {fields}") == 16 + 17
    assert childrenTicks("") == 0
    assert totalKilobytes("00400000-7ff00000 [rollup]\nRss:   1234 kB\nPss: 99 kB\n") == 1234
    assert totalKilobytes("") == 0


def test_pipeBytes() -> None:
    """A pipe counts whole, once for both of its ends, as soon as there is a byte in it."""
    # A process of its own: what else the tests' has in pipes comes and goes.
    program = "import os; r, w = os.pipe(); print(); input(); os.write(w, b'x'); print(); input()"
    with subprocess.Popen(
        [sys.executable, "-uc", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdout.readline()
        assert pipeBytes(child.pid) == 0
        child.stdin.write("\n")
        child.stdin.flush()
        child.stdout.readline()
        assert pipeBytes(child.pid) == fcntl.fcntl(child.stdout, fcntl.F_GETPIPE_SZ)
        child.stdin.write("\n")


def test_pipesOfNobody() -> None:
    """A process that is gone has none."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert pipeBytes(ended.pid) == 0


def test_messages() -> None:
    """Checks are made of whole messages of the asked size."""
    for pattern in ("raw", "line", "frame"):
        assert len(message(pattern, 64)) == 64
    assert message("line", 64).endswith(b"\r\n")
    assert message("frame", 64)[:2] == b"\x00\x3e"


# -- Figures -------------------------------------------------------------------------------


def cpu(*figures: float) -> list[Sample]:
    """Samples of one metric."""
    return [{"cpu": figure} for figure in figures]


def test_ratiosAreMadeWithinARepetition() -> None:
    """A machine that slows down for a while slows both, and the ratio stays."""
    target = Target("cpu", ("c",), 1.0, 0.5)
    samples = {ECHOD: cpu(2, 20, 4), "c": cpu(4, 40, 5)}
    assert ratios(target, samples) == [0.5, 0.5, 0.8]
    verdict = judge(target, samples)
    assert verdict.measured == spread([0.5, 0.5, 0.8])
    assert verdict.measured is not None
    assert (verdict.measured.median, verdict.measured.greatest) == (0.5, 0.8)
    assert verdict.word == "goal"


def test_bestOf() -> None:
    """The best of several is chosen in each repetition: least, or greatest where that is good."""
    samples = {ECHOD: cpu(2, 2), "c": cpu(4, 1), "go": cpu(1, 8)}
    assert ratios(Target("cpu", ("c", "go"), 1, 1), samples) == [2.0, 2.0]
    assert ratios(Target("cpu", ("c", "go"), 1, 1, larger=True), samples) == [0.5, 0.25]


@pytest.mark.parametrize(
    ("figure", "larger", "word"),
    [
        (1.0, False, "goal"),
        (1.5, False, "met"),
        (2.1, False, "missed"),
        (2.0, True, "goal"),
        (1.0, True, "met"),
        (0.9, True, "missed"),
    ],
)
def test_verdicts(figure: float, larger: bool, word: str) -> None:
    """At the bound is within it."""
    must, goal = (1.0, 2.0) if larger else (2.0, 1.0)
    target = Target("cpu", (), must, goal, larger)
    assert judge(target, {ECHOD: cpu(figure)}).word == word


def test_withoutGoal() -> None:
    """A target may have a must alone; then nothing better than "met" is said."""
    target = Target("cpu", (), 2.0)
    assert judge(target, {ECHOD: cpu(0.1)}).word == "met"
    assert judge(target, {ECHOD: cpu(2.1)}).word == "missed"
    assert (bound(target, target.goal), bound(Target("cpu", ("c",), 2.0), 2.0)) == ("—", "≤ 2.00")


def test_missingPeers() -> None:
    """Without one of several the rest is compared, and it is said; without all, nothing is."""
    target = Target("cpu", ("c", "go"), 1, 1)
    verdict = judge(target, {ECHOD: cpu(1), "c": cpu(2)})
    assert (verdict.word, verdict.without) == ("goal", ("go",))
    assert judge(target, {ECHOD: cpu(1)}).word == "not measured"
    assert judge(target, {"c": cpu(1), "go": cpu(1)}).word == "not measured"
    assert judge(Target("cpu", (), 1, 1), {}).word == "not measured"
    with pytest.raises(ValueError, match="no values"):
        spread([])


@pytest.mark.parametrize(("count", "place"), [(5, 1), (8, 6), (10, 11), (20, 61)])
def test_estimateBounds(count: int, place: int) -> None:
    """As printed tables of the signed-rank test have them (one-sided, 0.05), one counted from 0."""
    values = [1.001 ** (3**index % 101 + index) for index in range(count)]
    means = sorted(math.sqrt(one * other) for at, one in enumerate(values) for other in values[at:])
    found = estimate(values)
    assert found.lower == pytest.approx(means[place - 1])
    assert found.upper == pytest.approx(means[-place])
    assert found.lower < found.ratio < found.upper


def test_estimateOfTheOther() -> None:
    """What is compared with what does not matter; one that was disturbed hardly does."""
    values = [1.01, 0.99, 1.02, 1.00, 0.98, 1.03, 1.01, 0.97, 1.02, 1.04]
    found, other = estimate(values), estimate([1 / value for value in values])
    assert other.ratio == pytest.approx(1 / found.ratio)
    assert other.lower == pytest.approx(1 / found.upper)
    assert estimate([*values, 9.0]).ratio == pytest.approx(found.ratio, abs=0.01)


def test_estimateOfFew() -> None:
    """Four values bound nothing, whatever they are; none are an error."""
    assert estimate([1.0] * 4) == Estimate(1.0, 0.0, math.inf)
    with pytest.raises(ValueError, match="no values"):
        estimate([])


# -- The gate ------------------------------------------------------------------------------


def test_gateRows() -> None:
    """The rows exist; each of the three is started as echod is, with its options, in its folder."""
    rows = [gateRow(row) for row in ROWS if row.name in NAMES]
    assert len(rows) == len(NAMES)
    peers = peersOf({name: Path("/", name) for name in (ECHOD, BASE, AGAIN)})
    for row in rows:
        assert set(row.peers) == set(peers)
        assert row.fresh
    for name, peer in peers.items():
        assert commandOf(peer, "raw", 7, "/b") == commandOf(PEERS[ECHOD], "raw", 7, "/b")
        assert (peer.isEchod, peer.folder) == (True, f"/{name}")


def test_gateRowsByFamily() -> None:
    """Any row and any family without TLS; none for nothing; a wrong one is told."""
    assert [row.name for row in gateRows([])] == ["raw-50", "lines", "churn", "idle"]
    assert [row.name for row in gateRows(["shapes-50x64k"])] == ["shapes-50x64k"]
    assert [row.name for row in gateRows(["middle"])] == [
        row.name for row in chooseRows(["middle"])
    ]
    for row in gateRows(["shapes", "stalled"]):
        assert (row.peers, row.fresh, row.targets) == ((ECHOD, BASE, AGAIN), True, ())
    with pytest.raises(ValueError, match="'nothing' is no row"):
        gateRows(["nothing"])
    with pytest.raises(ValueError, match="'tls-50' is a row with TLS"):
        gateRows(["tls"])


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (Estimate(1.0, 0.98, 1.03), "passes"),
        (Estimate(1.02, 1.01, 1.029), "passes"),
        (Estimate(1.02, 0.99, 1.031), "cannot tell"),
        (Estimate(1.04, 1.01, 1.05), "costs more"),
        (None, "not measured"),
    ],
)
def test_gateWords(found: Estimate | None, said: str) -> None:
    """The bound decides, not the estimate; at 1.03 is within it."""
    assert word(found) == said


def test_gateTable() -> None:
    """Ratios are made within an alternation; a row without a peer is told, and breaks nothing."""
    row = gateRow(next(row for row in ROWS if row.name == "raw-50"))
    steps = [1.0, 2.0, 1.5, 3.0, 1.2]
    result = RowResult(row)
    result.samples = {
        ECHOD: cpu(*(1.02e-6 * step for step in steps)),
        BASE: cpu(*(1e-6 * step for step in steps)),
        AGAIN: cpu(*(1e-6 * step for step in steps)),
    }
    *_, first, second = table([result, RowResult(row)]).splitlines()
    assert "1.50 µs | 1.53 µs | 1.020 (1.020 … 1.020) | 1.000 (1.000 … 1.000) | passes |" in first
    assert second.endswith("| — | — | — | — | not measured |")


def test_gateWithoutGrowth() -> None:
    """Memory that has not grown gives no ratio, and breaks nothing."""
    row = gateRow(next(row for row in ROWS if row.name == "stalled"))
    figures: list[Sample] = [{"memory": figure} for figure in (0.0, -4096.0)]
    text = table([RowResult(row, {ECHOD: figures, BASE: [{"memory": 1.0}] * 2, AGAIN: figures})])
    assert text.endswith("| — | — | not measured |")


@pytest.mark.skipif(shutil.which("git") is None, reason="there is no git on the PATH")
def test_gateChecksOut(tmp_path: Path) -> None:
    """A revision's package, not what lies in the folder or is installed; a wrong one is told."""
    repository, folder = tmp_path / "repository", tmp_path / "folder"
    package = repository / "echod" / "__init__.py"
    package.parent.mkdir(parents=True)
    git = ["git", "-C", str(repository), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    package.write_text("which = 'old'\n")
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "the first"]):
        subprocess.run([*git, *words], check=True)
    package.write_text("which = 'new'\n")
    assert checkOut(repository, "HEAD", folder).endswith(" the first")
    assert (folder / "echod" / "__init__.py").read_text() == "which = 'old'\n"
    assert list((folder / "echod" / "__pycache__").iterdir())
    with pytest.raises(ServerError, match=r"git archive: .*nowhere"):
        checkOut(repository, "nowhere", folder)


# -- Congestion control --------------------------------------------------------------------


def test_congestionInUse() -> None:
    """It is one that the kernel has."""
    assert congestion.inUse() in congestion.available()


def test_congestionUnknown() -> None:
    """A name that the kernel has not is told with those that there are, and nothing is tried."""
    with pytest.raises(CongestionError, match=r"'nothing' is .*there are: .*reno"):
        congestion.use("nothing")


def test_congestionWithoutProgram(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without ip(8) the package that has it is named."""
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(CongestionError, match=r"'reno' needs .*iproute2"):
        congestion.use("reno")


def test_congestionUnprivileged(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who may not make a namespace is told the name and what helps."""

    def refused() -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(shutil, "which", lambda name: f"/sbin/{name}")
    monkeypatch.setattr(congestion, "_unshare", refused)
    with pytest.raises(CongestionError, match=r"'reno' needs .*not permitted.* Run it as root"):
        congestion.use("reno")


@pytest.mark.parametrize("name", congestion.available() or ["none"])
def test_congestionOfItsOwn(name: str) -> None:
    """Connections use it in the process that asked, and there alone."""
    before = congestion.inUse()
    program = """if True:
        import sys
        from benchmarks.congestion import CongestionError, inUse, use
        try:
            use(sys.argv[1])
        except CongestionError as error:
            sys.exit(str(error))
        print(inUse())
    """
    done = subprocess.run(
        [sys.executable, "-c", program, name],
        cwd=Path(benchmarks.__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        # A user without privileges, no iproute2, a kernel that says nothing.
        assert done.returncode == 1
        assert name in done.stderr
        pytest.skip(done.stderr.strip())
    assert done.stdout.strip() == name
    assert congestion.inUse() == before


# -- Order ---------------------------------------------------------------------------------


def test_turns() -> None:
    """Everybody once, and another one first each time."""
    assert turns("abc", 0) == ["a", "b", "c"]
    assert turns("abc", 1) == ["b", "c", "a"]
    assert turns("abc", 5) == ["c", "a", "b"]
    assert turns([], 3) == []


def test_chooseCPUs() -> None:
    """Two, of different cores if there are."""
    assert chooseCPUs({0, 1, 2, 3}, {0: {0, 1}, 2: {2, 3}}) == (0, 2)
    assert chooseCPUs({0, 1}, {0: {0, 1}}) == (0, 1)
    assert chooseCPUs({5}, {}) == (5, 5)


# -- What is written -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.04312, "0.0431"),
        (4.312, "4.31"),
        (9.999, "10.0"),
        (43.12, "43.1"),
        (4312, "4312"),
    ],
)
def test_number(value: float, text: str) -> None:
    """Three digits that count."""
    assert number(value) == text


def test_show() -> None:
    """Each metric has its unit."""
    assert show("cpu", "message", 4.7e-6) == "4.70 µs"
    assert show("cpu", "byte", 3.1e-10) == "0.310 ns"
    assert show("cpu", "handshake", 3.1e-4) == "310 µs"
    assert show("p99", "message", 0.0123) == "12.3 ms"
    assert show("rate", "byte", 2.5e9) == "2500 MB/s"
    assert show("memory", "connection", 131072) == "128 KiB"
    assert show("pipes", "connection", 262144) == "256 KiB"
    assert show("times", "line", 3.5).startswith("3.50")


def test_size() -> None:
    """Whole units where it is some."""
    assert [size(value) for value in (0, 64, 1024, 65536, 1 << 20, 1025)] == [
        *("0 B", "64 B", "1 KiB", "64 KiB", "1 MiB", "1025 B")
    ]


def test_markdownIsWellFormed() -> None:
    """Every table has one width; every row, target and failure is there."""
    text = markdown(results(), {"kernel": "a | b"}, {"go": "there is no go"})
    width = 0
    for line in text.splitlines():
        if not line.startswith("|"):
            width = 0
            continue
        cells = re.sub(r"\\\|", "", line).count("|")
        assert width in (0, cells), line
        width = cells
    for row in ROWS:
        assert f"### `{row.name}`" in text
    assert text.count("**missed**") + text.count("| met") == sum(len(row.targets) for row in ROWS)
    assert "there is no go" in text
    assert "it is <broken>" in text


def test_jsonHoldsEverything() -> None:
    """All samples and verdicts, readable again."""
    made = results()
    document = json.loads(json_(made, {"kernel": "x"}, {}))
    assert [row["name"] for row in document["rows"]] == [row.name for row in ROWS]
    for row, result in zip(document["rows"], made, strict=True):
        assert row["samples"] == result.samples
        assert [target["verdict"] for target in row["targets"]] == [
            verdict.word for verdict in verdicts(result)
        ]


@pytest.mark.parametrize("rows", [ROWS, ROWS[:1], ROWS[-1:], chooseRows(["shapes"]), ()])
def test_chartIsWellFormed(rows: Sequence[Row]) -> None:
    """It is XML, with a bar or a curve for each server, and nothing lies outside."""
    root = ElementTree.fromstring(chart(results(rows)))
    space = "{http://www.w3.org/2000/svg}"
    assert root.tag == f"{space}svg"
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    bars = sum(len(row.peers) for row in rows if not row.along)
    assert len(root.findall(f"{space}rect")) == 1 + bars
    points = sum(len(row.peers) for row in rows if row.along)
    assert len(root.findall(f"{space}circle")) == points
    for text in root.findall(f"{space}text"):
        assert 0 <= float(text.attrib["x"]) <= width
        assert 0 <= float(text.attrib["y"]) <= height


def test_nothingMeasured() -> None:
    """A row of which nothing came is told, and breaks nothing."""
    empty = [RowResult(row, failures={ECHOD: "it did not start"}) for row in ROWS]
    text = markdown(empty, {}, {})
    assert "it did not start" in text
    assert len(re.findall(r"not measured( \(without .*\))? \|", text)) == sum(
        len(row.targets) for row in ROWS
    )
    ElementTree.fromstring(chart(empty))
    json.loads(json_(empty, {}, {}))
