"""
Whether a change costs anything: ``python -m benchmarks gate --base REVISION``.

echod of one commit (``head``) is measured beside echod of another (``base``), and beside the
same other once more (``again``).  Each is a checkout of its own.  In each alternation every one
gets a new process and one turn, so that neither what a process happens to be like (addresses,
hashes) nor what the machine does meanwhile is taken for the change.  ``again`` over ``base`` is
the ratio of two things that are equal: it shows the noise.

A row passes if the upper bound of ``head`` over ``base`` is at most 1.03: one can then be
95 % confident that the change costs at most that (`benchmarks.figures.estimate` tells how).

Exit status 0: every row passes; 1: one does not; 2: one could not be measured.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.congestion import CongestionError, inUse, use
from benchmarks.figures import Estimate, RowResult, estimate, ratios, spread
from benchmarks.rows import ECHOD, PEERS, Peer, Row, Target, chooseRows
from benchmarks.run import Bench, Progress, allDescriptors, chooseCPUs, siblingsOf
from benchmarks.servers import Children, ServerError, build
from benchmarks.units import axis, show

__all__ = [
    "AGAIN",
    "BASE",
    "MOST",
    "checkOut",
    "gateRow",
    "gateRows",
    "main",
    "peersOf",
    "table",
    "word",
]

#: The rows that stand for all: a message, a connection, bulk, and what lies idle.
NAMES = ("raw-50", "churn", "lines", "idle")
#: The peers beside `ECHOD`, which is ``head`` here.
BASE, AGAIN = "base", "again"
#: What the upper bound of the ratio may be.
MOST = 1.03
#: Turns of each.
ALTERNATIONS = 20
#: Seconds of a turn.
SECONDS = 2.0


def checkOut(repository: str | Path, revision: str, folder: Path) -> str:
    """
    Put the package ``echod`` as it is in a revision into a folder, compiled.

    Nothing of the repository changes: it is a copy, no worktree.

    :returns: the commit's abbreviated name and the first line of what it says.
    :raises ServerError: if there is no such revision, or no package in it.
    """
    packed = _git(repository, "archive", "--format=tar", revision, "echod")
    folder.mkdir(parents=True, exist_ok=True)
    # tarfile's extractall has a filter from CPython 3.11.4 on, and warns without it later.
    unpack = ["tar", "-x", "-C", str(folder)]
    subprocess.run(unpack, input=packed, check=True)
    # An old process that has compiled has room in its heap that a new one has not.
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(folder / "echod")], check=True)
    where = _imported(folder)
    if not where.startswith(f"{folder.resolve()}/"):
        raise ServerError(f"Python takes echod from {where}, not from {folder}")
    return _git(repository, "log", "-1", "--format=%h %s", revision).decode().strip()


def _git(repository: str | Path, *words: str) -> bytes:
    git = shutil.which("git")
    if git is None:
        raise ServerError("the gate needs git (Debian's package: git)")
    done = subprocess.run([git, "-C", str(repository), *words], capture_output=True, check=False)
    if done.returncode:
        raise ServerError(f"git {words[0]}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def _imported(folder: Path) -> str:
    """Where a server that is started in that folder has echod from."""
    done = subprocess.run(
        [sys.executable, "-c", "import echod; print(echod.__file__)"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return str(Path(done.stdout.strip()).resolve())


def peersOf(folders: dict[str, Path]) -> dict[str, Peer]:
    """By name, echod as it lies in each folder: ``-m`` looks first where it is started."""
    return {
        name: replace(PEERS[ECHOD], title=name, folder=str(folder))
        for name, folder in folders.items()
    }


def gateRow(row: Row) -> Row:
    """The row with the three of the gate, each of them new in each alternation."""
    return replace(row, peers=(ECHOD, BASE, AGAIN), fresh=True, targets=())


def gateRows(words: Sequence[str]) -> list[Row]:
    """
    The rows of these names or families, as the gate measures them; those of `NAMES` for none.

    :raises ValueError: for a word that is none, and for a row with TLS: the gate has none.
    """
    rows = chooseRows(words or NAMES)
    for row in rows:
        if row.tls:
            raise ValueError(f"{row.name!r} is a row with TLS, and the gate measures without")
    return [gateRow(row) for row in rows]


def compared(result: RowResult, name: str, other: str) -> Estimate | None:
    """What one costs over the other, in the row's first figure; ``None`` if it is not known."""
    metric = result.row.metrics[0]
    samples = {ECHOD: result.samples.get(name, ()), other: result.samples.get(other, ())}
    # Memory may have grown by nothing at all: there is no ratio then.
    found = [one for one in ratios(Target(metric, (other,), MOST), samples) if one > 0]
    return estimate(found) if found else None


def word(head: Estimate | None, most: float = MOST) -> str:
    """
    What to say of a row.

    ``passes``; ``costs more`` when that is as sure as passing would be; ``cannot tell`` when the
    noise leaves both open: more alternations narrow it down.
    """
    if head is None:
        return "not measured"
    if head.upper <= most:
        return "passes"
    return "costs more" if head.lower > 1 else "cannot tell"


def _range(found: Estimate | None) -> str:
    if found is None:
        return "—"
    return f"{found.ratio:.3f} ({found.lower:.3f} … {found.upper:.3f})"


def table(results: Sequence[RowResult]) -> str:
    """All rows as a Markdown table."""
    lines = [
        "| row | figure | base | head | head over base | base over base (noise) | |",
        "| --- | --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for result in results:
        row = result.row
        metric = row.metrics[0]
        medians = [
            show(metric, row.unit, spread([one[metric] for one in samples]).median)
            if (samples := result.samples.get(name))
            else "—"
            for name in (BASE, ECHOD)
        ]
        head = compared(result, ECHOD, BASE)
        cells = (
            f"`{row.name}`",
            axis(metric, row.unit),
            *medians,
            _range(head),
            _range(compared(result, AGAIN, BASE)),
            word(head),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks gate",
        description="Measure echod of two commits in turns; say whether the later one costs more.",
    )
    parser.add_argument("--base", metavar="REVISION", required=True, help="the commit before")
    parser.add_argument("--head", metavar="REVISION", default="HEAD", help="[HEAD]")
    parser.add_argument(
        "--only",
        metavar="ROW",
        action="append",
        default=[],
        help="this row, or all whose names begin so (shapes, middle); repeats"
        f" [{', '.join(NAMES)}]",
    )
    parser.add_argument("--repeat", metavar="N", type=int, default=ALTERNATIONS, help="[20]")
    parser.add_argument(
        "--seconds", metavar="S", type=float, default=SECONDS, help="of one turn [2]"
    )
    parser.add_argument(
        "--congestion",
        metavar="NAME",
        help="use this congestion control (bbr, cubic), in a network namespace of its own, which"
        " takes root",
    )
    return parser


def _ended(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and tell; returns the exit status."""
    parser = _options()
    options = parser.parse_args(arguments)
    try:
        rows = gateRows(options.only)
    except ValueError as error:
        parser.error(str(error))
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _ended)
    allDescriptors()
    allowed = os.sched_getaffinity(0)
    cpus = chooseCPUs(allowed, siblingsOf(allowed))
    progress = Progress()
    children = Children()
    results: list[RowResult] = []
    try:
        with tempfile.TemporaryDirectory(prefix="echod-gate-") as place:
            folders = {name: Path(place, name) for name in (ECHOD, BASE, AGAIN)}
            here = Path(__file__).parents[1]
            for name, folder in folders.items():
                revision = options.head if name == ECHOD else options.base
                said = checkOut(here, revision, folder)
                if name != AGAIN:
                    print(f"{'head' if name == ECHOD else name}: {said}", flush=True)
            if options.congestion is not None:
                use(options.congestion)
            print(f"congestion control: {inUse()}", flush=True)
            progress.show("compiling")
            build(place)
            bench = Bench(
                children,
                place,
                {},
                options.repeat,
                options.seconds,
                cpus,
                progress,
                peers=peersOf(folders),
            )
            for index, row in enumerate(rows):
                result = bench.measure(row, label=f"row {index + 1} of {len(rows)},")
                results.append(result)
                progress.clear()
                for name, why in result.failures.items():
                    print(f"{row.name}: {name}: not measured: {why}", flush=True)
            print(table(results))
    except (ServerError, CongestionError) as error:
        progress.clear()
        print(f"benchmarks gate: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        progress.clear()
        print(table(results))
        return 130
    finally:
        children.endAll()
    words = [word(compared(result, ECHOD, BASE)) for result in results]
    if "not measured" in words:
        return 2
    return 0 if all(one == "passes" for one in words) else 1
