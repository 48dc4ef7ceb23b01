"""
The command: ``python -m benchmarks``, and ``python -m benchmarks soak``, ``start``, ``gate`` and
``insight``; see ``README.md`` here.

Exit status 0: every chosen row was measured for echod; 1: one was not, or nothing could be; it
says nothing about targets, which a shared machine may miss.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from benchmarks.chart import chart
from benchmarks.congestion import CongestionError, use
from benchmarks.figures import RowResult, spread, verdicts
from benchmarks.gate import checkOut
from benchmarks.gate import main as gate
from benchmarks.insight import main as insight
from benchmarks.report import bound, environment, json_, markdown, measured
from benchmarks.rows import BEFORE, ECHOD, PEERS, ROWS, Row, chooseRows, withBefore
from benchmarks.run import Bench, Progress, allDescriptors, chooseCPUs, siblingsOf
from benchmarks.servers import Children, ServerError, build, missing, secure
from benchmarks.soak import main as soak
from benchmarks.start import main as start
from benchmarks.units import axis, show

RESULTS = Path(__file__).parent / "results"


def _peers(text: str) -> list[str]:
    chosen = [word.strip() for word in text.split(",") if word.strip()]
    for word in chosen:
        if word not in PEERS:
            raise argparse.ArgumentTypeError(f"{word!r} is no peer; there are: {', '.join(PEERS)}")
    return chosen


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < 3600:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 3600")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return value


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure echod beside other echo servers; write tables and a picture.",
    )
    parser.add_argument(
        "--only",
        metavar="ROW",
        action="append",
        default=[],
        help="this row, or all whose names begin so (growth, raw, flood); repeats."
        " The results are then called partial.*",
    )
    parser.add_argument(
        "--peers", metavar="NAME,...", type=_peers, help="beside echod, only these (as partial.*)"
    )
    parser.add_argument(
        "--repeat", metavar="N", type=_count, default=5, help="turns of each server [5]"
    )
    parser.add_argument(
        "--seconds", metavar="S", type=_positive, default=2.0, help="of one turn [2]"
    )
    parser.add_argument(
        "--output", metavar="FOLDER", type=Path, default=RESULTS, help="[benchmarks/results]"
    )
    parser.add_argument(
        "--before",
        metavar="REVISION",
        help="beside echod, measure echod of that commit too (as partial.*)",
    )
    parser.add_argument(
        "--congestion",
        metavar="NAME",
        help="use this congestion control (bbr, cubic), in a network namespace of its own, which"
        " takes root (as partial.*)",
    )
    parser.add_argument("--list", action="store_true", help="say which rows and peers there are")
    return parser


def _list(absent: dict[str, str]) -> None:
    print("rows:")
    for row in ROWS:
        print(f"  {row.name:15} {row.title}")
        print(f"  {'':15} {', '.join(row.peers)}")
    print("peers:")
    for name, peer in PEERS.items():
        title = peer.title.replace("*", "").replace("`", "")
        print(f"  {name:16} {title}" + (f": missing: {absent[name]}" if name in absent else ""))


def _say(result: RowResult) -> None:
    """A row's result on standard output, as soon as it is there."""
    row = result.row
    print(row.name)
    for peer, samples in result.samples.items():
        figures = "  ".join(
            f"{axis(metric, row.unit)} "
            + show(metric, row.unit, spread([sample[metric] for sample in samples]).median)
            for metric in row.metrics
        )
        print(f"  {peer:16} {figures}")
    for peer, why in result.failures.items():
        print(f"  {peer:16} not measured: {why}")
    for verdict in verdicts(result):
        target = verdict.target
        median, least = measured(verdict)
        print(
            f"    {target.metric} against {', '.join(target.against) or 'nobody'}:"
            f" {median} ({least}), must {bound(target, target.must)},"
            f" goal {bound(target, target.goal)}: {verdict.word}"
        )
    sys.stdout.flush()


def _write(
    folder: Path,
    name: str,
    results: Sequence[RowResult],
    machine: dict[str, str],
    absent: dict[str, str],
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for suffix, text in (
        ("md", markdown(results, machine, absent)),
        ("json", json_(results, machine, absent)),
        ("svg", chart(results)),
    ):
        # Never half a file, whenever it is interrupted.
        partial = folder / f".{name}.{suffix}.new"
        partial.write_text(text, encoding="utf-8")
        partial.replace(folder / f"{name}.{suffix}")


def _ended(number: int, frame: object) -> NoReturn:
    raise SystemExit(128 + number)


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the options say; returns the exit status."""
    parser = _options()
    options = parser.parse_args(arguments)
    absent = {name: why for name, peer in PEERS.items() if (why := missing(peer)) is not None}
    if options.list:
        _list(absent)
        return 0
    rows: list[Row]
    try:
        rows = chooseRows(options.only)
    except ValueError as error:
        parser.error(str(error))
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _ended)
    allDescriptors()
    allowed = os.sched_getaffinity(0)
    cpus = chooseCPUs(allowed, siblingsOf(allowed))
    other = options.congestion is not None or options.before is not None
    whole = not options.only and options.peers is None and not other
    progress = Progress()
    children = Children()
    results: list[RowResult] = []
    try:
        with tempfile.TemporaryDirectory(prefix="echod-benchmarks-") as folder:
            if options.congestion is not None:
                use(options.congestion)
            progress.show("compiling")
            absent |= build(folder)
            for name, why in absent.items():
                print(f"missing: {name}: {why}")
            bench = Bench(children, folder, absent, options.repeat, options.seconds, cpus, progress)
            if any(row.tls for row in rows):
                try:
                    bench.pem = secure(folder)
                except ServerError as error:
                    bench.noTLS = str(error)
                    print(f"missing: rows with TLS: {error}")
            machine = environment(cpus, options.repeat, options.seconds)
            if options.before is not None:
                earlier = Path(folder, BEFORE)
                machine[BEFORE] = checkOut(Path(__file__).parents[1], options.before, earlier)
                bench.peers = {**PEERS, BEFORE: replace(PEERS[BEFORE], folder=str(earlier))}
                rows = [withBefore(row) for row in rows]
                if options.peers is not None:
                    options.peers.append(BEFORE)
            for index, row in enumerate(rows):
                result = bench.measure(row, options.peers, f"row {index + 1} of {len(rows)},")
                results.append(result)
                progress.clear()
                _say(result)
                complete = whole and len(results) == len(rows)
                name = "results" if complete else "partial"
                _write(options.output, name, results, machine, absent)
            if whole:
                for path in options.output.glob("partial.*"):
                    path.unlink()
    except (ServerError, CongestionError) as error:
        progress.clear()
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        progress.clear()
        print("benchmarks: interrupted; what was measured is in partial.*", file=sys.stderr)
        return 130
    finally:
        children.endAll()
    return 0 if all(result.samples.get(ECHOD) for result in results) else 1


if __name__ == "__main__":
    others = {"soak": soak, "start": start, "gate": gate, "insight": insight}
    other = others.get(sys.argv[1]) if len(sys.argv) > 1 else None
    sys.exit(main() if other is None else other(sys.argv[2:]))
