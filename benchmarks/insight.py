"""
What asking a daemon costs: ``python -m benchmarks insight``.

A daemon with five listeners, and one with an ``admin`` listener on a UNIX socket besides, are
asked as Prometheus and an operator would ask.  It prints a table and a line of JSON.  Exit status
0: every figure is within its target; 1: one is not; 2: one could not be had.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from benchmarks.load import Generator, LoadError, Outcome
from benchmarks.measure import cpuSeconds, residentBytes, settle
from benchmarks.run import allDescriptors, chooseCPUs, siblingsOf
from benchmarks.servers import Children, ServerError, build
from echod.errors import EchodError
from echod.testing.admin_client import AdminClient
from echod.testing.running import Process

__all__ = ["Figure", "configuration", "main", "tableOf"]

PROTOCOLS = ("raw", "line", "int32", "discard", "whoami")
#: Of the listener ``raw``; the others have what is left of 20 000 descriptors.
CONNECTIONS = 10_000
SORTS = ("", "pending", "age", "idle", "bytes")
OPENMETRICS = "application/openmetrics-text; version=1.0.0"
#: Seconds for an answer.
PATIENCE = 30.0
#: What the targets are, in seconds and bytes.
SCRAPE, MEMORY, LIST, PING, STORY = 0.010, 8 << 20, 0.150, 0.020, 1.0


@dataclass(frozen=True)
class Figure:
    """A value in seconds (``s``), bytes (``B``), or a number; at most ``must``, if that is told."""

    name: str
    value: float
    unit: str = "s"
    must: float | None = None

    @property
    def met(self) -> bool:
        """Whether it is within its target."""
        return self.must is None or self.value <= self.must


def configuration(path: str | None) -> str:
    """The daemon's file: five listeners, and ``admin`` on the UNIX socket ``path``, if any."""
    tables = [(name, "tcp:0:interface=127.0.0.1") for name in PROTOCOLS]
    if path is not None:
        tables.append(("admin", f"unix:{path}:mode=600"))
    return "".join(
        f'[[listener]]\nprotocol = "{protocol}"\nendpoint = "{endpoint}"\n'
        f"max_connections = {CONNECTIONS + 100 if protocol == 'raw' else 100}\n"
        for protocol, endpoint in tables
    )


def tableOf(figures: Sequence[Figure]) -> str:
    """The figures as Markdown: in ms, KiB, or as they are."""

    def show(value: float | None, unit: str) -> str:
        if value is None:
            return ""
        if unit == "s":
            return f"{value * 1000:.2f} ms"
        return f"{value / 1024:,.0f} KiB" if unit == "B" else f"{value:g}"

    return "| figure | | must | |\n| --- | ---: | ---: | --- |\n" + "".join(
        f"| {figure.name} | {show(figure.value, figure.unit)} | {show(figure.must, figure.unit)} |"
        f" {'' if figure.must is None else 'met' if figure.met else '**missed**'} |\n"
        for figure in figures
    )


class _Daemon:
    """A daemon that runs; ``path`` is where it is asked."""

    def __init__(self, process: Process, path: str) -> None:
        self.pid = process.pid
        self.port = process.ports["raw"]
        self.path = path

    def open(self, target: str, accept: str = "*/*", buffer: int = 0) -> socket.socket:
        """A connection over which the request has gone."""
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        client.settimeout(PATIENCE)
        if buffer:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        client.connect(self.path)
        client.sendall(
            f"GET {target} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n"
            "Connection: close\r\n\r\n".encode()
        )
        return client

    def get(self, target: str, accept: str = "*/*") -> int:
        """
        Read a whole answer, and forget it; returns its length with the head.

        :raises EchodError: it is not 200.
        """
        with self.open(target, accept) as client:
            head = data = client.recv(1 << 18)
            length = 0
            while data:
                length += len(data)
                data = client.recv(1 << 18)
        if b" 200 " not in head[:20]:
            raise EchodError(f"{target}: {head[:200]!r}")
        return length

    def ask(self, target: str, accept: str, times: int) -> None:
        """`get`, so often."""
        for _ in range(times):
            self.get(target, accept)

    def cost(self, act: Callable[[], object]) -> tuple[float, float]:
        """CPU seconds of the daemon for an act, and seconds by the wall clock."""
        cpu, wall = cpuSeconds(self.pid), time.monotonic()
        act()
        took = time.monotonic() - wall
        return cpuSeconds(self.pid) - cpu, took


@contextmanager
def _daemon(folder: str, cpu: int, admin: bool = True) -> Iterator[_Daemon]:
    path = f"{folder}/admin.sock"
    file = Path(folder, "echod.toml")
    file.write_text(configuration(path if admin else None))
    with Process([sys.executable, "-m", "echod", "--config", str(file)]) as process:
        os.sched_setaffinity(process.pid, {cpu})
        settle(process.pid)
        yield _Daemon(process, path)


def pages(daemon: _Daemon, seconds: float) -> Iterator[Figure]:
    """CPU time of one request for each page, the mean of 50, and of a stream of events."""
    for name, target, accept, must in (
        ("/metrics, text", "/metrics", "text/plain", SCRAPE),
        ("/metrics, OpenMetrics", "/metrics", OPENMETRICS, SCRAPE),
        ("/counters", "/counters", "*/*", SCRAPE),
        ("/listeners", "/listeners", "*/*", SCRAPE),
    ):
        daemon.get(target, accept)
        # One may take less than what the clock of another process shows.
        cpu, _ = daemon.cost(partial(daemon.ask, target, accept, 50))
        yield Figure(f"{name}: CPU", cpu / 50, must=must)
    alone, _ = daemon.cost(lambda: time.sleep(seconds))
    with daemon.open("/events") as client:
        stop = threading.Thread(target=_read, args=(client,), daemon=True)
        stop.start()
        watched, _ = daemon.cost(lambda: time.sleep(seconds))
        client.shutdown(socket.SHUT_RDWR)
        stop.join()
    yield Figure("/events: CPU a second", (watched - alone) / seconds)


def _read(client: socket.socket) -> None:
    """Until the end."""
    while client.recv(1 << 16):
        pass


def memory(folder: str, cpu: int, times: int) -> Iterator[Figure]:
    """Resident memory of new processes, in turns: without admin, with it, after it was asked."""
    bare, begun, asked = [], [], []
    for _ in range(times):
        with _daemon(folder, cpu, admin=False) as daemon:
            bare.append(residentBytes(daemon.pid))
        with _daemon(folder, cpu) as daemon:
            begun.append(residentBytes(daemon.pid))
            for _ in range(10):
                for target in ("/metrics", "/connections", "/closed", "/listeners"):
                    daemon.get(target)
            asked.append(residentBytes(daemon.pid))
    least = statistics.median(bare)
    yield Figure("resident memory without admin", least, "B")
    yield Figure("… more with admin", statistics.median(begun) - least, "B", MEMORY)
    yield Figure("… after ten scrapes and lists", statistics.median(asked) - least, "B", MEMORY)


def stories(daemon: _Daemon, times: int) -> Iterator[Figure]:
    """Seconds from a client's close until ``/closed`` tells of it."""
    client, found = AdminClient(daemon.path, PATIENCE, PATIENCE), []
    for _ in range(times):
        with socket.create_connection(("127.0.0.1", daemon.port), PATIENCE) as peer:
            peer.sendall(b"x")
            peer.recv(1)
            name = "{}:{}".format(*peer.getsockname())
        ended = time.monotonic()
        while all(row["peer"] != name for row in client.ask("/closed?limit=5")["connections"]):
            if time.monotonic() > ended + PATIENCE:
                raise EchodError(f"/closed does not tell of {name}")
        found.append(time.monotonic() - ended)
    yield Figure("until /closed has the story, median", statistics.median(found))
    yield Figure("until /closed has the story, worst", max(found), must=STORY)


def lists(
    daemon: _Daemon, children: Children, load: str, cpu: int, count: int, seconds: float
) -> Iterator[Figure]:
    """``/connections`` whole, while so many are connected and one more client plays ping-pong."""
    with ExitStack() as stack:
        for _ in range(count):
            peer = stack.enter_context(socket.create_connection(("127.0.0.1", daemon.port)))
            peer.sendall(b"x")
        settle(daemon.pid)
        yield Figure("connections", count, "")
        for sort in SORTS:
            target = f"/connections?limit=10000{sort and '&sort='}{sort}"
            costs = [daemon.cost(partial(daemon.get, target)) for _ in range(5)]
            cpus, walls = ([cost[index] for cost in costs] for index in (0, 1))
            name = f"/connections by {sort}" if sort else "/connections"
            yield Figure(f"{name}: CPU", statistics.median(cpus), must=LIST)
            yield Figure(f"{name}: until all was read", statistics.median(walls), must=LIST)
        command = [load, "pingpong", f"port={daemon.port}", "connections=1", f"seconds={seconds}"]

        def pingpong(meanwhile: Callable[[], object] | None) -> Outcome:
            outcomes: list[Outcome] = []
            with Generator(children, command, cpu, seconds) as generator:
                generator.connected()
                worker = threading.Thread(target=lambda: outcomes.append(generator.work()))
                worker.start()
                while worker.is_alive():
                    if meanwhile is None:
                        worker.join()
                    else:
                        meanwhile()
            if not outcomes:
                raise LoadError("the ping-pong client has failed")
            return outcomes[0]

        for name, act in (
            ("alone", None),
            ("while lists are read without a pause", lambda: daemon.get(target)),
        ):
            latency = pingpong(act).latency
            must = None if act is None else PING
            yield Figure(f"ping-pong {name}: median", latency["p50"])
            yield Figure(f"ping-pong {name}: 99th percentile", latency["p99"], must=must)
            yield Figure(f"ping-pong {name}: longest", latency["longest"])
        settle(daemon.pid)
        alone, _ = daemon.cost(lambda: time.sleep(seconds))
        before = residentBytes(daemon.pid)
        with daemon.open("/connections?limit=10000", buffer=4096):
            time.sleep(1)
            stalled, _ = daemon.cost(lambda: time.sleep(seconds))
            grown = residentBytes(daemon.pid) - before
        yield Figure("a reader that stalls: CPU a second", (stalled - alone) / seconds)
        yield Figure("a reader that stalls: memory", grown, "B")


def main(arguments: Sequence[str]) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks insight", description=__doc__)
    parser.add_argument("--connections", type=int, default=CONNECTIONS, help="[10000, the most]")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each look that waits [10]")
    parser.add_argument("--times", type=int, default=5, help="new processes for memory [5]")
    options = parser.parse_args(arguments)
    allDescriptors()
    allowed = os.sched_getaffinity(0)
    server, client = chooseCPUs(allowed, siblingsOf(allowed))
    os.sched_setaffinity(0, {client})
    count = min(options.connections, CONNECTIONS)
    children = Children()
    figures: list[Figure] = []
    try:
        with tempfile.TemporaryDirectory(prefix="echod-insight-") as folder:
            build(folder)
            figures += memory(folder, server, options.times)
            with _daemon(folder, server) as daemon:
                figures += pages(daemon, options.seconds)
                figures += stories(daemon, 200)
                figures += lists(daemon, children, f"{folder}/load", client, count, options.seconds)
    except (AssertionError, EchodError, LoadError, OSError, ServerError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    finally:
        children.endAll()
    print(tableOf(figures))
    print(json.dumps([asdict(figure) for figure in figures]))
    return 0 if all(figure.met for figure in figures) else 1
