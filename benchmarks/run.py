"""
The order of it all: rows, repetitions, servers in turn.

The servers of a row run side by side, pinned to one CPU, the generator to another.  In each
repetition every server has its turn, and each repetition begins with another one; a server's
turn ends when it has become quiet, so that what it does about closed connections is not
counted to the next.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from benchmarks.figures import RowResult, Sample
from benchmarks.load import Generator, LoadError
from benchmarks.measure import cpuSeconds, pipeBytes, residentBytes, settle
from benchmarks.rows import ECHOD, PEERS, Peer, Row
from benchmarks.servers import Children, Server, ServerError, checkEcho, checkHalfClose

__all__ = ["Bench", "Progress", "allDescriptors", "chooseCPUs", "siblingsOf", "turns"]

#: Seconds before memory is read, for buffers to come and go.
QUIET = 0.5
#: The share of a turn that each server gets before its first one, unmeasured: compilers at run
#: time and caches need it.
WARM = 0.25


class Progress:
    """One line on standard error, if that is a terminal."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()
        self._begun = time.monotonic()

    def show(self, text: str) -> None:
        """Replace the line."""
        if self._shown:
            passed = int(time.monotonic() - self._begun)
            line = f"{passed // 60:3d}:{passed % 60:02d} {text}"
            sys.stderr.write(f"\r\x1b[K{line[: os.get_terminal_size(2).columns - 1]}")
            sys.stderr.flush()

    def clear(self) -> None:
        """Take the line away."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def chooseCPUs(allowed: set[int], siblings: dict[int, set[int]]) -> tuple[int, int]:
    """
    The CPUs of the server and of the load generator.

    Two, and of different cores if that can be had; the same twice if there is but one.

    :param siblings: for each CPU, those of its core.
    """
    server, *others = sorted(allowed)
    apart = [cpu for cpu in others if cpu not in siblings.get(server, set())]
    return server, (apart or others or [server])[0]


def siblingsOf(allowed: set[int]) -> dict[int, set[int]]:
    """For each CPU, those of its core, as far as the kernel says."""
    found: dict[int, set[int]] = {}
    for cpu in allowed:
        try:
            with open(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list") as file:
                text = file.read().strip()
        except OSError:
            continue
        for part in text.split(","):
            first, _, last = part.partition("-")
            found.setdefault(cpu, set()).update(range(int(first), int(last or first) + 1))
    return found


def allDescriptors() -> None:
    """Raise the limit of open files to what is allowed: servers inherit it, not all raise it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def turns(peers: Sequence[str], repetition: int) -> list[str]:
    """Whose turn it is, in order: each repetition begins with the next one."""
    first = repetition % len(peers) if peers else 0
    return [*peers[first:], *peers[:first]]


@dataclass
class Bench:
    """
    Measures rows.

    :ivar children: starts all processes.
    :ivar folder: where the compiled programs are.
    :ivar missing: by peer, why it cannot be had.
    :ivar pem: the certificate and key for rows with TLS; without, ``noTLS`` says why.
    :ivar seconds: of one turn; ``repeat``: turns of each server.
    :ivar cpus: of the servers, and of the load generator.
    :ivar peers: the servers that rows name.
    """

    children: Children
    folder: str
    missing: dict[str, str]
    repeat: int
    seconds: float
    cpus: tuple[int, int]
    progress: Progress
    pem: str = ""
    noTLS: str = ""
    peers: Mapping[str, Peer] = field(default_factory=lambda: PEERS)

    def measure(self, row: Row, chosen: Sequence[str] | None = None, label: str = "") -> RowResult:
        """
        Measure one row; whatever fails is told in its result.

        :param chosen: which peers besides echod; all for ``None``.
        :param label: for the progress line.
        """
        result = RowResult(row)
        if row.tls and not self.pem:
            result.failures[ECHOD] = self.noTLS
            return result
        peers = [peer for peer in row.peers if chosen is None or peer == ECHOD or peer in chosen]
        for peer in list(peers):
            if peer in self.missing:
                result.failures[peer] = self.missing[peer]
                peers.remove(peer)
        with ExitStack() as stack:
            servers: dict[str, Server] = {}
            if not row.fresh:
                for peer in list(peers):
                    self.progress.show(f"{label} {row.name}: starting {peer}")
                    try:
                        servers[peer] = stack.enter_context(self._start(row, peer))
                        self._turn(row, servers[peer], self.seconds * WARM)
                    except (ServerError, LoadError) as error:
                        result.failures[peer] = str(error)
                        peers.remove(peer)
            for repetition in range(self.repeat):
                for peer in turns(peers, repetition):
                    if peer in result.failures:
                        continue
                    self.progress.show(
                        f"{label} {row.name}: repetition {repetition + 1} of {self.repeat}, {peer}"
                    )
                    try:
                        if row.fresh:
                            with self._start(row, peer) as server:
                                if not row.measuresMemory:
                                    self._turn(row, server, self.seconds * WARM)
                                sample = self._turn(row, server, self.seconds)
                        else:
                            sample = self._turn(row, servers[peer], self.seconds)
                    except (ServerError, LoadError) as error:
                        result.failures[peer] = str(error)
                        result.samples.pop(peer, None)
                    else:
                        result.samples.setdefault(peer, []).append(sample)
        return result

    def _start(self, row: Row, name: str) -> Server:
        """A server that listens and has been seen to echo."""
        peer = self.peers[name]
        options = row.options if peer.isEchod else ()
        pem = self.pem if row.tls else ""
        server = Server(self.children, peer, row.pattern, self.folder, self.cpus[0], options, pem)
        try:
            checkEcho(server.port, row.pattern, peer.checkBytes, pem)
            if row.halfCloses:
                checkHalfClose(server.port)
            settle(server.pid, peer.forks)
        except (OSError, ServerError) as error:
            why = server.blame(error)
            server.end()
            raise ServerError(why) from error
        except BaseException:
            server.end()
            raise
        return server

    def _turn(self, row: Row, server: Server, seconds: float) -> Sample:
        """
        One server's turn in one repetition.

        :raises LoadError: saying what the server's last words were.
        """
        try:
            return self._sample(row, server, seconds)
        except LoadError as error:
            raise LoadError(server.blame(error)) from error

    def _sample(self, row: Row, server: Server, seconds: float) -> Sample:
        words = [f"{key}={value}" for key, value in row.keys(seconds).items()]
        generator = "load_tls" if row.tls else "load"
        command = [f"{self.folder}/{generator}", row.mode, f"port={server.port}", *words]
        forks = server.peer.forks
        resident, piped = residentBytes(server.pid, forks), pipeBytes(server.pid, forks)
        with Generator(self.children, command, self.cpus[1], seconds) as load:
            sent = load.connected()
            if row.measuresMemory:
                time.sleep(QUIET)
                grown = residentBytes(server.pid, forks) - resident
                pipes = pipeBytes(server.pid, forks) - piped
                found = {"memory": grown, "sent": sent, "pipes": pipes}
                return {name: figure / row.connections for name, figure in found.items()}
            before = cpuSeconds(server.pid, forks)
            outcome = load.work()
            used = cpuSeconds(server.pid, forks) - before
        if outcome.short:
            raise LoadError(f"{outcome.short} of {outcome.count} connections lost bytes")
        count = outcome.bytes if row.unit == "byte" else outcome.count
        if not count:
            raise LoadError("nothing came back")
        settle(server.pid, forks)
        sample = {
            "cpu": used / count,
            "rate": count / outcome.wall,
            "busy": used / outcome.wall,
            "generator": outcome.cpu / outcome.wall,
            **{key.replace("alone_p", "alone"): value for key, value in outcome.latency.items()},
        }
        if "alone50" in sample:
            sample["times"] = sample["p50"] / sample["alone50"]
        return sample
