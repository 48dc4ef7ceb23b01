"""
A soak: ``python -m benchmarks soak --minutes N``.

Ten thousand connections of mixed behaviour against one daemon, every byte verified, memory,
descriptors and loop lag sampled each second.  It ends with a table and a plot in
``benchmarks/results/`` (``soak.md``, ``soak.svg``), and exit status 0 if all bytes were right,
memory was flat (the last half of the time grew by less than 1 MiB) and no descriptor was left over.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import resource
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from echod.testing.running import Process

__all__ = ["main"]

RESULTS = Path(__file__).parent / "results"
#: What each connection does, and how many of a hundred.
MIX = {"echoing": 40, "idle": 30, "dripping": 15, "churning": 10, "resetting": 4, "stalled": 1}
#: Bytes that all clients take their data from, each from a place of its own.
POOL = random.Random(862).randbytes(1 << 20)  # noqa: S311  # the same in each run
#: The last half of the samples may grow by as much, in bytes.
FLAT = 1 << 20
#: What one stalled client sends before it reads.
STALL = 200_000


class Client:
    """One connection after another, of one behaviour, until the time is over."""

    def __init__(self, soak: Soak, number: int, behaviour: str) -> None:
        self._soak = soak
        self._random = random.Random(number)  # noqa: S311  # the same in each run
        self._behave: Callable[[], Coroutine[Any, Any, None]] = getattr(self, behaviour)
        self._name = behaviour

    async def run(self) -> None:
        """Behave, again and again; whatever goes wrong is counted."""
        while self._soak.left() > 0:
            try:
                await self._behave()
                self._soak.counts[self._name] += 1
            except (TimeoutError, OSError, asyncio.IncompleteReadError) as error:
                self._soak.faults[f"{self._name}: {type(error).__name__}"] += 1
                await asyncio.sleep(1)

    async def _connect(self, **options: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self._soak.port, **options)

    def _data(self, size: int) -> bytes:
        at = self._random.randrange(len(POOL) - size)
        return POOL[at : at + size]

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes
    ) -> None:
        writer.write(data)
        await writer.drain()
        self._check(await asyncio.wait_for(reader.readexactly(len(data)), 60), data)

    def _check(self, got: bytes, data: bytes) -> None:
        self._soak.bytes += len(got)
        if got != data:
            self._soak.faults[f"{self._name}: other bytes"] += 1

    async def _finish(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write_eof()
        self._check(await asyncio.wait_for(reader.read(), 60), b"")
        writer.close()

    def _pause(self, seconds: float) -> Coroutine[Any, Any, None]:
        return asyncio.sleep(min(seconds * self._random.uniform(0.5, 1.5), self._soak.left()))

    async def echoing(self) -> None:
        """Now a little, now more, for some while."""
        reader, writer = await self._connect()
        for _ in range(self._random.randrange(5, 20)):
            if self._soak.left() <= 0:
                break
            await self._exchange(reader, writer, self._data(self._random.randrange(1, 8000)))
            await self._pause(3)
        await self._finish(reader, writer)

    async def idle(self) -> None:
        """A word at the beginning, a word at the end."""
        reader, writer = await self._connect()
        await self._exchange(reader, writer, b"hello")
        await self._pause(90)
        await self._exchange(reader, writer, b"goodbye")
        await self._finish(reader, writer)

    async def dripping(self) -> None:
        """One byte at a time."""
        reader, writer = await self._connect()
        for _ in range(50):
            if self._soak.left() <= 0:
                break
            await self._exchange(reader, writer, self._data(1))
            await self._pause(1)
        await self._finish(reader, writer)

    async def churning(self) -> None:
        """Connect, send, half-close, read to EOF."""
        reader, writer = await self._connect()
        data = self._data(64)
        writer.write(data)
        writer.write_eof()
        self._check(await asyncio.wait_for(reader.read(), 60), data)
        writer.close()
        await self._pause(2)

    async def resetting(self) -> None:
        """Gone with RST in the middle of anything."""
        _, writer = await self._connect()
        writer.write(self._data(self._random.randrange(1, 100_000)))
        await self._pause(1)
        skt: socket.socket = writer.get_extra_info("socket")
        skt.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        await self._pause(2)

    async def stalled(self) -> None:
        """Send, read nothing for a while, then all."""
        reader, writer = await self._connect(limit=4096)
        data = self._data(STALL)
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # of a socket
        writer.write(data)
        await self._pause(20)
        writer.transport.resume_reading()  # type: ignore[attr-defined]  # of a socket
        self._check(await asyncio.wait_for(reader.readexactly(len(data)), 60), data)
        await self._finish(reader, writer)


class Soak:
    """
    The whole of it.

    :ivar counts: how often each behaviour came to its end.
    :ivar faults: what went wrong, and how often.
    :ivar samples: of each second: the time, bytes of memory, descriptors, worst lag in ms.
    """

    def __init__(self, process: Process, seconds: float, connections: int) -> None:
        self._process = process
        self._connections = connections
        self._end = time.monotonic() + seconds
        self._began = time.monotonic()
        self.port = process.ports["raw"]
        self.bytes = 0
        self.counts: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.samples: list[tuple[float, int, int, float]] = []

    def left(self) -> float:
        """Seconds until the end."""
        return max(0.0, self._end - time.monotonic())

    async def run(self) -> None:
        """Everybody at once, begun over some seconds."""
        names = [name for name, share in MIX.items() for _ in range(share)]
        clients = [
            Client(self, number, names[number * 37 % len(names)])
            for number in range(self._connections)
        ]
        sampling = asyncio.ensure_future(self._sample())
        running = []
        for number, client in enumerate(clients):
            running.append(asyncio.ensure_future(client.run()))
            if number % 100 == 99:
                await asyncio.sleep(0.05)
        await asyncio.gather(*running)
        await sampling

    async def _sample(self) -> None:
        while self.left() > 0:
            await asyncio.sleep(min(1.0, self.left()))
            counters = await asyncio.to_thread(self._process.allCounters)
            self.samples.append(
                (
                    time.monotonic() - self._began,
                    memoryOf(self._process.pid),
                    descriptorsOf(self._process.pid),
                    counters["worst_lag_ms"],
                )
            )
            if sys.stderr.isatty():
                sys.stderr.write(f"\r{self.left():.0f} s left, {self.bytes >> 20} MiB right ")


def memoryOf(pid: int) -> int:
    """Resident memory, in bytes."""
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptorsOf(pid: int) -> int:
    """Open descriptors."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def report(soak: Soak, minutes: float, baseline: int, final: int) -> tuple[str, bool]:
    """A Markdown table, and whether all is well."""
    settled = [sample for sample in soak.samples if sample[0] > 60 * minutes / 10]
    half = settled[len(settled) // 2 :] or soak.samples
    early = [memory for _, memory, _, _ in half[: max(1, len(half) // 5)]]
    late = [memory for _, memory, _, _ in half[-max(1, len(half) // 5) :]]
    growth = sorted(late)[len(late) // 2] - sorted(early)[len(early) // 2]
    wrong = {key: count for key, count in soak.faults.items() if "resetting" not in key}
    well = not wrong and growth < FLAT and final <= baseline
    rows = [
        ("minutes", f"{minutes:g}"),
        ("bytes that came back right", f"{soak.bytes:,}"),
        *((f"connections that were {name}", f"{soak.counts[name]:,}") for name in MIX),
        ("faults", ", ".join(f"{key} {count}" for key, count in soak.faults.items()) or "none"),
        ("most connections' descriptors", str(max((s[2] for s in soak.samples), default=0))),
        ("descriptors before and after", f"{baseline}, {final}"),
        ("resident memory, most", f"{max((s[1] for s in soak.samples), default=0) >> 10:,} KiB"),
        ("growth in the last half", f"{growth / 1024:,.0f} KiB (must be below {FLAT >> 10})"),
        ("worst lag of the loop", f"{max((s[3] for s in soak.samples), default=0):g} ms"),
        ("verdict", "well" if well else "**not well**"),
    ]
    table = "| soak | |\n| --- | ---: |\n" + "".join(
        f"| {key} | {value} |\n" for key, value in rows
    )
    return table, well


def plot(samples: Sequence[tuple[float, int, int, float]]) -> str:
    """An SVG of memory (MiB) and descriptors over the time."""
    width, height, left = 800, 180, 80
    parts = []
    last = max(1.0, samples[-1][0] if samples else 1.0)
    for panel, (title, index, unit) in enumerate(
        (("resident memory, MiB", 1, 1 << 20), ("descriptors", 2, 1), ("worst lag, ms", 3, 1))
    ):
        top = 30 + panel * (height + 40)
        most = max([sample[index] / unit for sample in samples] or [1]) or 1
        scaled = [(sample[0] / last, sample[index] / unit / most) for sample in samples]
        points = " ".join(f"{left + x * width:.1f},{top + height * (1 - y):.1f}" for x, y in scaled)
        parts.append(
            f'<text x="{left}" y="{top - 8}">{title}: at most {most:.1f}</text>'
            f'<polyline points="{points}" fill="none" stroke="#c2410c" stroke-width="1.5"/>'
            f'<path d="M{left} {top}V{top + height}H{left + width}" fill="none" stroke="#475569"/>'
        )
    total = 30 + 3 * (height + 40)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 20}" height="{total}"'
        f' font-family="sans-serif" font-size="13">{"".join(parts)}</svg>\n'
    )


def main(arguments: Sequence[str]) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="[10]")
    parser.add_argument("--connections", type=int, default=10_000, help="[10000]")
    parser.add_argument("--output", type=Path, default=RESULTS, help="[benchmarks/results]")
    options = parser.parse_args(arguments)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    command = [sys.executable, "-m", "echod", "--port", "0", "--max-connections"]
    with Process([*command, str(options.connections + 500)]) as process:
        baseline = descriptorsOf(process.pid)
        soak = Soak(process, options.minutes * 60, options.connections)
        asyncio.run(soak.run())
        deadline = time.monotonic() + 10
        while descriptorsOf(process.pid) > baseline and time.monotonic() < deadline:
            time.sleep(0.1)
        table, well = report(soak, options.minutes, baseline, descriptorsOf(process.pid))
        process.stop()
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "soak.md").write_text(table)
    (options.output / "soak.svg").write_text(plot(soak.samples))
    print(table)
    return 0 if well else 1
