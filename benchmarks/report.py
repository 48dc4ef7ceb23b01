"""What came out, as Markdown and JSON.  Pure but for `environment`, which asks the machine."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import shutil
import ssl
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.congestion import inUse
from benchmarks.figures import RowResult, Spread, Verdict, spread, verdicts
from benchmarks.rows import ECHOD, PEERS, Target
from benchmarks.units import axis, show

__all__ = ["bound", "environment", "json_", "markdown", "measured"]

_WORDS = {
    "goal": "met, goal too",
    "met": "met",
    "missed": "**missed**",
    "not measured": "not measured",
}


def environment(cpus: tuple[int, int], repeat: int, seconds: float) -> dict[str, str]:
    """The machine, the versions and how it was measured."""
    found = {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": f"{_processor()}, {os.cpu_count()} CPUs",
        "kernel": f"{platform.system()} {platform.release()}",
        "congestion control": inUse(),
        "pinned": f"servers to CPU {cpus[0]}, load generator to CPU {cpus[1]}"
        + (" (there is only one: the wall clock says little)" if cpus[0] == cpus[1] else ""),
        "repetitions": f"{repeat}, {seconds:g} s each",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
    }
    # That of Python, and as a rule of the load generator; cryptography brings another for Twisted.
    found["OpenSSL"] = ssl.OPENSSL_VERSION
    for package in ("twisted-echod", "Twisted", "cryptography", "uvloop", "gevent"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    for program, word, line, field in (
        ("gcc", "-dumpfullversion", 0, 0),
        ("node", "--version", 0, 0),
        ("go", "version", 0, 2),
        ("socat", "-V", 1, 2),
        ("ncat", "--version", 0, 2),
    ):
        version = _version(program, word, line, field)
        if version:
            found[program] = version
    return found


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()


def _version(program: str, word: str, line: int, field: int) -> str:
    if shutil.which(program) is None:
        return ""
    done = subprocess.run([program, word], capture_output=True, text=True, check=False)
    try:
        return (done.stdout + done.stderr).splitlines()[line].split()[field]
    except IndexError:
        return ""


def bound(target: Target, value: float | None) -> str:
    """A must or a goal as text: ``≤ 1.15``, ``≥ 1.30``, ``≤ 25.0 ms``; ``—`` for none."""
    if value is None:
        return "—"
    sign = "≥" if target.larger else "≤"
    if target.against:
        return f"{sign} {value:.2f}"
    return f"{sign} {show(target.metric, '', value)}"


def _against(target: Target) -> str:
    names = [PEERS[peer].title for peer in target.against]
    if not names:
        return "itself alone" if target.metric == "times" else "—"
    return names[0] if len(names) == 1 else f"best of {', '.join(names)}"


def measured(verdict: Verdict) -> tuple[str, str]:
    """Median, and least to greatest, as text."""
    if verdict.measured is None:
        return "—", "—"
    target, one = verdict.target, verdict.measured

    def words(value: float) -> str:
        return f"{value:.3f}" if target.against else show(target.metric, "", value)

    return words(one.median), f"{words(one.least)} … {words(one.greatest)}"


def _range(metric: str, unit: str, one: Spread) -> str:
    shown = [show(metric, unit, value) for value in (one.median, one.least, one.greatest)]
    return f"{shown[0]} ({shown[1]} … {shown[2]})"


def _table(head: Sequence[str], body: Sequence[Sequence[str]], left: int) -> list[str]:
    """A table of which the first ``left`` columns are words, the rest figures."""
    rule = [" --- " if index < left else " ---: " for index in range(len(head))]
    rows = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in body]
    return [f"| {' | '.join(head)} |", f"|{'|'.join(rule)}|", *rows, ""]


def _summary(results: Sequence[RowResult]) -> list[str]:
    body = []
    for result in results:
        title = f"{result.row.title} (`{result.row.name}`)"
        for verdict in verdicts(result):
            target = verdict.target
            median, least = measured(verdict)
            word = _WORDS[verdict.word]
            if verdict.without:
                word += f" (without {', '.join(verdict.without)})"
            body.append(
                [
                    title,
                    axis(target.metric, result.row.unit),
                    _against(target),
                    bound(target, target.must),
                    bound(target, target.goal),
                    f"**{median}**",
                    least,
                    word,
                ]
            )
            title = ""
    if not body:
        return []
    head = ["row", "figure", "against", "must", "goal", "measured", "least … greatest", ""]
    return ["## Targets", "", *_table(head, body, 3)]


def _details(result: RowResult) -> list[str]:
    row = result.row
    lines = [f"### `{row.name}`: {row.title}", ""]
    own = result.samples.get(ECHOD, [])
    first = row.metrics[0]
    body = []
    limited = False
    for peer in row.peers:
        samples = result.samples.get(peer)
        if not samples:
            continue
        cells = [PEERS[peer].title]
        for metric in row.metrics:
            one = spread([sample[metric] for sample in samples])
            cells.append(_range(metric, row.unit, one))
        # A generator that polls is always busy.
        sleeps = not row.spin and row.mode != "flood" and first == "cpu"
        if sleeps and spread([one["generator"] - one["busy"] for one in samples]).median > 0:
            cells[0] += " †"
            limited = True
        if peer == ECHOD or not own:
            cells.append("1" if own else "—")
        else:
            one = spread(
                [
                    mine[first] / theirs[first]
                    for mine, theirs in zip(own, samples, strict=False)
                    if theirs[first] > 0
                ]
                or [0.0]
            )
            cells.append(f"{one.median:.3f} ({one.least:.3f} … {one.greatest:.3f})")
        body.append(cells)
    head = ["server", *(axis(metric, row.unit) for metric in row.metrics)]
    head.append(f"echod's {axis(first, row.unit)} over its")
    lines += _table(head, body, 1)
    if limited:
        note = "† The load generator worked more than this server, which was not the limit on"
        lines += [f"{note} the wall clock.", ""]
    for peer, why in result.failures.items():
        lines += [f"- {PEERS[peer].title}: not measured: {why}"]
    if result.failures:
        lines.append("")
    return lines


def markdown(
    results: Sequence[RowResult], environment: Mapping[str, str], missing: Mapping[str, str]
) -> str:
    """The whole report."""
    lines = [
        "# echod's benchmarks",
        "",
        "Medians of the repetitions, in parentheses the least and the greatest; a ratio is made",
        "within each repetition. [How to read it](../README.md).",
        "",
        *_table(["", ""], [[key, value] for key, value in environment.items()], 2),
        *_summary(results),
    ]
    if missing:
        lines += ["## Missing", ""]
        lines += [f"- {PEERS[peer].title}: {why}" for peer, why in missing.items()]
        lines.append("")
    lines += ["## Rows", ""]
    for result in results:
        lines += _details(result)
    return "\n".join(lines)


def json_(
    results: Sequence[RowResult], environment: Mapping[str, str], missing: Mapping[str, str]
) -> str:
    """All samples, in SI units, with the verdicts."""
    rows: list[dict[str, Any]] = []
    for result in results:
        row = result.row
        rows.append(
            {
                "name": row.name,
                "title": row.title,
                "unit": row.unit,
                "connections": row.connections,
                "samples": {peer: list(samples) for peer, samples in result.samples.items()},
                "failures": result.failures,
                "targets": [
                    {
                        "metric": verdict.target.metric,
                        "against": verdict.target.against,
                        "larger": verdict.target.larger,
                        "must": verdict.target.must,
                        "goal": verdict.target.goal,
                        "median": verdict.measured and verdict.measured.median,
                        "least": verdict.measured and verdict.measured.least,
                        "greatest": verdict.measured and verdict.measured.greatest,
                        "verdict": verdict.word,
                        "without": verdict.without,
                    }
                    for verdict in verdicts(result)
                ],
            }
        )
    document = {"environment": dict(environment), "missing": dict(missing), "rows": rows}
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"
