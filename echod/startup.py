"""
What the process sees to before anything else is loaded: signals, and descriptors 0 to 2.

A daemon takes a third of a second to load, and whoever sends it a signal cannot know whether it is
done.  From `begin` on none is lost and none kills it by its default: SIGTERM and SIGINT end it,
with status 0, until it has bound its sockets, and are kept from then on, as SIGHUP, SIGUSR1 and
SIGUSR2 are all the while, for `echod.daemon.signals.Signals`.  The kernel keeps them, being
blocked; so it does for process 1 of a container, which loses whatever else has no handler
(pid_namespaces(7)).

It loads nothing that takes time.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

__all__ = [
    "StoppedEarly",
    "beCommand",
    "begin",
    "bound",
    "fillDescriptors",
    "ignored",
    "printsAlone",
    "ready",
    "taken",
]

#: They end the daemon.
_STOPS = (signal.SIGTERM, signal.SIGINT)
#: They ask something of one that serves.
_REQUESTS = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
#: Those that a shell's ``&`` and nohup(1) have ignored; that is a wish.
_IGNORABLE = frozenset({signal.SIGINT, signal.SIGHUP})
#: Options with which it prints something and ends; they can be shortened.
_PRINTING = ("--check-config", "--list-protocols", "--help", "--version")

# Whether `begin` was called: the process is ours, and no test's.
_begun = False


class StoppedEarly(SystemExit):
    """SIGTERM or SIGINT came before anything was served: an orderly end."""


def begin() -> None:
    """
    Take over the signals, whatever was inherited, and leave no standard descriptor closed.

    What was blocked is unblocked; SIGINT and SIGHUP that were ignored stay so.
    """
    global _begun  # noqa: PLW0603  # one process
    _begun = True
    fillDescriptors()
    for number in _STOPS:
        if not ignored(number):
            signal.signal(number, _end)
    signal.pthread_sigmask(signal.SIG_SETMASK, _REQUESTS)
    # First of all, so that it is last of all.
    atexit.register(_over)


def beCommand() -> None:
    """Let SIGINT end it without a traceback, as any command; what was ignored stays so."""
    if not ignored(signal.SIGINT):
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def bound() -> None:
    """The sockets are bound: who stops it now is heard once it serves, and they are unbound."""
    if _begun:
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)


def ready() -> None:
    """There are handlers for all of them: have what came meanwhile delivered."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def ignored(number: int) -> bool:
    """Whether a signal is one that was ignored at the start, and is to stay so."""
    return number in _IGNORABLE and signal.getsignal(number) is signal.SIG_IGN


def printsAlone(arguments: Sequence[str]) -> bool:
    """Whether it prints something and ends: a signal ends that as any command."""
    words = [word for word in arguments if len(word) > len("--")]
    return any(option.startswith(word) for option in _PRINTING for word in words)


def taken() -> list[int]:
    """Which of descriptors 0 to 2 were closed when Python started, and are somebody's by now."""
    streams = enumerate((sys.__stdin__, sys.__stdout__, sys.__stderr__))
    return [number for number, stream in streams if stream is None and _isOpen(number)]


def fillDescriptors() -> None:
    """
    Have descriptors 0 to 2 lead to ``/dev/null`` where they are closed.

    Else a socket gets such a number, and `twistd` puts ``/dev/null`` in its place as it leaves the
    foreground.
    """
    for number in range(3):
        if not _isOpen(number):
            # The lowest that is free: this one.
            os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(number, True)


def _isOpen(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _end(number: int, frame: FrameType | None) -> None:
    raise StoppedEarly(0)


def _over() -> None:
    # As Python ends it gives each its default back, and one that comes late would kill.
    signal.pthread_sigmask(signal.SIG_BLOCK, (*_STOPS, *_REQUESTS))
