"""Starting a daemon as systemd does: with sockets from descriptor 3 on, and three variables."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from tests.integration.daemon import TWISTD

__all__ = ["PASSING", "passing", "unwrapped", "wrapped"]

#: Moves descriptors to 3, 4, …, and sets the variables; ``command`` is what the process becomes:
#: its number is the one in LISTEN_PID.
PASSING = """
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
"""
_WRAPPER = [sys.executable, "-c", PASSING + "os.execv(command[0], command)\n"]
#: Words of the wrapper's own before the command.
_WORDS = 3


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
        "command": [*_WRAPPER, *words, *command],
        "descriptors": numbers,
    }


def wrapped(command: Sequence[str]) -> bool:
    """Whether it is a command of `passing`."""
    return list(command[: len(_WRAPPER)]) == _WRAPPER


def unwrapped(command: Sequence[str]) -> list[str]:
    """The command that gets the sockets."""
    return list(command[len(_WRAPPER) + _WORDS :])
