"""
Somebody else's code, called in one way: what it raises costs the one thing that it was called for.

Protocols, makers and factories are other people's.  Whatever they raise is told in the log, which
they cannot fill (`logsFault`), and whoever called them goes on.  ``SystemExit`` is a fault like
any: the way to end the daemon is a signal, and one connection's code has no say in it (Twisted's
reactors do the same).  So is all else that is no ``Exception``, such as ``KeyboardInterrupt`` and
``asyncio.CancelledError``: in the daemon no signal raises one of them.
"""

from __future__ import annotations

from time import monotonic

from twisted.logger import Logger
from twisted.python.failure import Failure

from echod.wire.token_buckets import Rate

__all__ = ["allowFaults", "logsFault", "tellFault"]

_log = Logger()

#: Tracebacks in the log: one a second, and so many at once.
PER_SECOND, AT_ONCE = 1, 10

_faults = Rate(PER_SECOND, AT_ONCE)


def allowFaults() -> None:
    """Let `AT_ONCE` tracebacks be logged at once again, however many there were."""
    global _faults  # noqa: PLW0603  # one process
    _faults = Rate(PER_SECOND, AT_ONCE)


def logsFault() -> bool:
    """
    Whether one more traceback may be logged.

    A peer that knows how to make a protocol raise must not fill the log: after a few tracebacks
    there is one a second, and counters tell the rest.
    """
    return _faults.take(monotonic())


def tellFault(failure: Failure, what: str) -> None:
    """Say in the log ``what`` failed, if `logsFault`."""
    if logsFault():
        _log.failure("{what}", failure, what=what)
