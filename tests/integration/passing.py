"""Starting a daemon as systemd does: with sockets from descriptor 3 on, and three variables."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from tests.integration.daemon import TWISTD, Daemon

__all__ = ["passing", "serving"]

# Moves descriptors to 3, 4, …, sets the variables, and becomes the command: its number is the one
# in LISTEN_PID.
_WRAPPER = """
import fcntl, os, sys
numbers, names, process, *command = sys.argv[1:]
moved = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 100) for number in numbers.split(",") if number]
for number in map(int, filter(None, numbers.split(","))):
    os.close(number)
for target, number in enumerate(moved, 3):
    os.dup2(number, target)
    os.close(number)
os.environ["LISTEN_FDS"] = str(len(moved))
os.environ["LISTEN_PID"] = process or str(os.getpid())
if names != "-":
    os.environ["LISTEN_FDNAMES"] = names
os.execv(command[0], command)
"""


def passing(
    sockets: Sequence[Any],
    names: str | None = None,
    *,
    process: str = "",
    command: Sequence[str] = TWISTD,
) -> dict[str, Any]:
    """
    Arguments for `Daemon` or `run` that pass ``sockets`` from 3 on.

    :param names: ``LISTEN_FDNAMES``, if it is set.
    :param process: ``LISTEN_PID``, if it is not the right one.
    """
    numbers = [skt.fileno() for skt in sockets]
    words = [",".join(map(str, numbers)), "-" if names is None else names, process]
    return {
        "command": [sys.executable, "-c", _WRAPPER, *words, *command],
        "descriptors": numbers,
    }


def serving(sockets: Sequence[Any], *arguments: str, protocol: str = "raw") -> Daemon:
    """A daemon that serves ``protocol`` on all of them, under one name."""
    names = ":".join(["x"] * len(sockets))
    return Daemon("--listen", f"{protocol}=systemd:name=x", *arguments, **passing(sockets, names))
