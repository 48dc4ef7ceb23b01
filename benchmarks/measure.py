"""
What a server has used so far, as the kernel counts it: CPU time, resident memory, pipes.

CPU time is user and system time of all threads, ended ones included, in nanoseconds (the clock
of ``clock_getcpuclockid(3)``; what ``/proc/PID/stat`` has is the same in ticks of 10 ms).  For
a server that forks, that of its living descendants is added, and that of those it has waited for.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import termios
import time
from collections.abc import Iterator
from pathlib import Path

__all__ = [
    "childrenTicks",
    "cpuSeconds",
    "pipeBytes",
    "residentBytes",
    "settle",
    "totalKilobytes",
]

_TICK = 1 / os.sysconf("SC_CLK_TCK")


def _read(path: str) -> str:
    """A file of ``/proc``, empty if its process is gone."""
    try:
        with open(path) as file:
            return file.read()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _tree(pid: int) -> Iterator[int]:
    yield pid
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
    except FileNotFoundError:
        return
    for task in tasks:
        for child in _read(f"/proc/{pid}/task/{task}/children").split():
            yield from _tree(int(child))


def childrenTicks(stat: str) -> int:
    """The ticks of children that were waited for, of the text of ``/proc/PID/stat``."""
    # The name in parentheses may hold anything; `cutime` and `cstime` are fields 16 and 17.
    fields = stat.rpartition(")")[2].split()
    return int(fields[13]) + int(fields[14]) if len(fields) > 14 else 0


def _ownSeconds(pid: int) -> float:
    try:
        # The kernel's name for the clock of a process: its id inverted, and 2 for run time.
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return 0.0


def cpuSeconds(pid: int, forks: bool = False) -> float:
    """CPU seconds of a process so far; with ``forks``, of its descendants too."""
    if not forks:
        return _ownSeconds(pid)
    return sum(
        _ownSeconds(one) + _TICK * childrenTicks(_read(f"/proc/{one}/stat")) for one in _tree(pid)
    )


def totalKilobytes(smaps: str) -> int:
    """The resident size, kB, of the text of ``/proc/PID/smaps_rollup``."""
    for line in smaps.splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1])
    return 0


def residentBytes(pid: int, forks: bool = False) -> int:
    """
    Resident bytes of a process; with ``forks``, of its descendants too.

    Of ``smaps_rollup``, which walks the pages: ``statm`` may be some hundred KiB behind.
    """
    return 1024 * sum(
        totalKilobytes(_read(f"/proc/{one}/smaps_rollup"))
        for one in (_tree(pid) if forks else [pid])
    )


def pipeBytes(pid: int, forks: bool = False) -> int:
    """
    Bytes of kernel memory that lie in a process's pipes, at most; with ``forks``, its descendants'.

    They are no part of the resident memory.  Of each pipe that has something in it the whole
    capacity counts (``F_GETPIPE_SZ``), because a page is taken by one byte as by 4096 of them.
    An empty pipe holds no page.
    """
    seen: set[str] = set()
    total = 0
    for one in _tree(pid) if forks else [pid]:
        for number in _listed(f"/proc/{one}/fd"):
            # It may have been closed meanwhile.
            with contextlib.suppress(FileNotFoundError):
                path = Path(f"/proc/{one}/fd/{number}")
                name = str(path.readlink())
                if name.startswith("pipe:") and name not in seen:
                    seen.add(name)
                    total += _takenPipe(path)
    return total


def _listed(folder: str) -> list[str]:
    """What is in a folder of ``/proc``, nothing if its process is gone."""
    try:
        return os.listdir(folder)
    except (FileNotFoundError, ProcessLookupError):
        return []


def _takenPipe(path: Path) -> int:
    """The capacity of the pipe behind a path of ``/proc/PID/fd``; 0 if it is empty."""
    # Opening it so makes another reading end, whichever end it is (`proc_pid_fd(5)`).
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        waiting = array.array("i", [0])
        fcntl.ioctl(descriptor, termios.FIONREAD, waiting)
        return fcntl.fcntl(descriptor, fcntl.F_GETPIPE_SZ) if waiting[0] else 0
    finally:
        os.close(descriptor)


def settle(pid: int, forks: bool = False, most: float = 10.0) -> None:
    """Wait until it has been quiet (under 2 % of a CPU) for 0.1 s, ``most`` seconds at most."""
    deadline = time.monotonic() + most
    before = cpuSeconds(pid, forks)
    while time.monotonic() < deadline:
        time.sleep(0.1)
        after = cpuSeconds(pid, forks)
        if after - before < 0.002:
            return
        before = after
