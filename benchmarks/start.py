"""
From the command to READY=1: ``python -m benchmarks start``.

`twistd echod` beside `twistd web`, the web server that comes with Twisted, in turns: most of either
is Python and Twisted.  The CPU time decides, because the wall clock also shows what else a machine
does; in each turn both are started right after each other.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Start", "main", "measure", "ratio"]

#: Starts of each.
TIMES = 10
#: Seconds from the command to READY, at most (the median); CPU time over that of the web server.
MUST_SECONDS, MUST_RATIO = 0.5, 1.3
#: Seconds that one may take before it is given up.
PATIENCE = 30.0

_TWISTD = [str(Path(sys.executable).with_name("twistd")), "-n", "--pidfile="]


@dataclass(frozen=True)
class Start:
    """Seconds until it served: by the wall clock, and of CPU time."""

    seconds: float
    cpu: float


def measure(times: int) -> list[tuple[Start, Start]]:
    """
    Start echod and the web server so often; echod is the first of each pair.

    :raises TimeoutError: one did not serve in time.
    """
    with tempfile.TemporaryDirectory(prefix="echod-start-") as folder:
        return [(_echod(folder), _web(folder)) for _ in range(times)]


def ratio(pairs: Sequence[tuple[Start, Start]]) -> float:
    """The median of the ratios of CPU time within each pair."""
    return statistics.median(echod.cpu / web.cpu for echod, web in pairs)


def _echod(folder: str) -> Start:
    """Until it says READY=1, as a service manager hears it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        path = f"{folder}/notify"
        manager.bind(path)
        manager.settimeout(PATIENCE)
        try:
            begun, process = _start(["echod", "--port=0"], folder, {"NOTIFY_SOCKET": path})
            with process:
                try:
                    while b"READY=1" not in manager.recv(4096):
                        pass
                    return _served(process, begun)
                finally:
                    process.kill()
        finally:
            Path(path).unlink()


def _web(folder: str) -> Start:
    """Until somebody who tries again and again is connected."""
    path = f"{folder}/web"
    begun, process = _start(["web", f"--path={folder}", f"--listen=unix:{path}"], folder, {})
    with process:
        try:
            while time.monotonic() < begun + PATIENCE:
                with socket.socket(socket.AF_UNIX) as client:
                    if client.connect_ex(path) == 0:
                        return _served(process, begun)
                time.sleep(0.002)
            raise TimeoutError("the web server does not serve")
        finally:
            process.kill()


def _start(
    words: list[str], folder: str, environment: dict[str, str]
) -> tuple[float, subprocess.Popen[bytes]]:
    begun = time.monotonic()
    process = subprocess.Popen(
        [*_TWISTD, *words],
        cwd=folder,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return begun, process


def _served(process: subprocess.Popen[bytes], begun: float) -> Start:
    seconds = time.monotonic() - begun
    nanoseconds, *_ = Path(f"/proc/{process.pid}/schedstat").read_text().split()
    return Start(seconds, int(nanoseconds) / 1e9)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and tell; exit status 0 if both are within what they must be."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks start", description=__doc__)
    parser.add_argument("--times", metavar="N", type=int, default=TIMES, help="[10]")
    pairs = measure(parser.parse_args(arguments).times)
    for name, starts in zip(("echod", "web"), zip(*pairs, strict=True), strict=True):
        wall = [start.seconds * 1000 for start in starts]
        cpu = [start.cpu * 1000 for start in starts]
        print(
            f"{name:6} {statistics.median(wall):4.0f} ms ({min(wall):.0f} … {max(wall):.0f}),"
            f" CPU time {statistics.median(cpu):4.0f} ms ({min(cpu):.0f} … {max(cpu):.0f})"
        )
    seconds = statistics.median(echod.seconds for echod, _ in pairs)
    met = seconds <= MUST_SECONDS and ratio(pairs) <= MUST_RATIO
    print(
        f"echod over web, CPU time: {ratio(pairs):.2f}; must be {MUST_RATIO} at most, and"
        f" {MUST_SECONDS * 1000:.0f} ms: {'met' if met else 'missed'}"
    )
    return 0 if met else 1
