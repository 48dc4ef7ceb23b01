"""
Binding all listeners of a start: `bindAll` waits for addresses that are not there yet.

An address may become an interface's after echod is started: by DHCP, as a virtual one, or as one of
IPv6 that is being probed (RFC 4862 section 5.4).  It is tried again for ``bind_timeout`` seconds.
The wait blocks its caller, on purpose: what is bound last still has the privileges of the start
(``twistd --uid`` drops them afterwards), and nobody is told that the daemon is ready before.  A
signal ends it.  Clients of listeners that are bound already wait in the kernel's queue.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from twisted.logger import Logger

from echod.errors import AddressMissing, BindTimedOut
from echod.server.listener import Listener

__all__ = ["bindAll"]

_log = Logger()

#: Seconds between two tries.
STEP = 0.2


def bindAll(
    listeners: Iterable[Listener],
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """
    Bind all of them; the ``bind_timeout`` of each begins now.

    :raises ConfigurationError: a protocol raised.
    :raises BindTimedOut: an address has not come.
    :raises ListenError: another reason, at once: waiting changes nothing.  Those that are bound
        stay so.
    """
    began = monotonic()
    missing = list(listeners)
    told: dict[Listener, str] = {}
    while True:
        missing = [each for each in missing if not _bind(each, monotonic() - began, told)]
        if not missing:
            return
        sleep(STEP)


def _bind(listener: Listener, waited: float, told: dict[Listener, str]) -> bool:
    """Whether it is bound; if not it may wait, and the log knows why since ``told`` does."""
    try:
        listener.privilegedStartService()
    except AddressMissing as error:
        timeout = listener.plan.limits.bindTimeout
        if not timeout:
            raise
        if waited >= timeout:
            raise BindTimedOut(f"{error}, for {timeout:g} s (bind_timeout)") from error
        if told.get(listener) != str(error):
            told[listener] = str(error)
            _log.warn("{error}: tried again for {timeout:g} s", error=error, timeout=timeout)
        return False
    return True
