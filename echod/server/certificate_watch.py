"""Warns of certificates that expire soon, in the log, once a day: `CertificateWatch`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from echod.server.listener import Listener

__all__ = ["CertificateWatch"]

_log = Logger()

DAY = 86400.0
#: Seconds before its end from which a certificate is warned of.
SOON = 14 * DAY


class CertificateWatch:
    """
    Looks at the certificates of all listeners, and once a day again while there are any.

    :param listeners: those that serve.
    :param reactor: calls the next look.
    :param now: seconds since 1970.
    """

    def __init__(
        self,
        listeners: Callable[[], Iterable[Listener]],
        reactor: IReactorTime,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._listeners = listeners
        self._reactor = reactor
        self._now = now
        # The next look; written by look and stop.
        self._next: IDelayedCall | None = None

    def look(self) -> None:
        """Warn of those that expire within `SOON`, or have; the next look is a day from now."""
        self.stop()
        now = self._now()
        for listener in self._listeners():
            for expiry in listener.plan.expiries:
                if self._next is None:
                    self._next = self._reactor.callLater(DAY, self._again)
                left = expiry.notAfter - now
                if left < SOON:
                    _log.warn(
                        "certificate {path} of {listener} {_words} at {notAfter}{_left}:"
                        " renew it, and reload",
                        event="certificate_expires",
                        listener=listener.describe(),
                        path=expiry.path,
                        name=expiry.name,
                        notAfter=expiry.until,
                        seconds=round(left),
                        _words="expires" if left > 0 else "has expired",
                        _left=f", in {_lasting(left)}" if left > 0 else "",
                    )

    def stop(self) -> None:
        """Look no more."""
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _again(self) -> None:
        self._next = None
        self.look()


def _lasting(seconds: float) -> str:
    if seconds >= 2 * DAY:
        return f"{seconds // DAY:.0f} days"
    return f"{seconds // 3600:.0f} hours"
