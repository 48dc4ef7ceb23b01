"""
What the service manager is told (sd_notify(3)): `Notifier`.

One datagram a message, to the socket that ``NOTIFY_SOCKET`` names.  Without the variable nothing is
sent and nothing is logged; where sending fails, that is said once.  The variables are taken out of
the environment, so that no child believes it is meant.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping

from twisted.logger import Logger

__all__ = ["Notifier"]

_log = Logger()

#: Digits of the largest number of 64 bits.
_DIGITS = 20


class Notifier:
    """
    Sends a service manager its messages.

    :param environment: is read, and loses its ``NOTIFY_SOCKET`` and ``WATCHDOG_…``.
    :ivar watchdogInterval: seconds within which `watchdog` is expected, or ``None``.
    """

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        address = environment.pop("NOTIFY_SOCKET", "")
        interval = environment.pop("WATCHDOG_USEC", "")
        process = environment.pop("WATCHDOG_PID", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._failed = False
        self._status = ""
        meant = address != "" and process in ("", str(os.getpid()))
        self.watchdogInterval = _seconds(interval) if meant and interval else None

    def ready(self) -> None:
        """It serves; also after `reloading`."""
        self._send("READY=1")

    def reloading(self) -> None:
        """It reads its configuration again."""
        microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send("RELOADING=1", f"MONOTONIC_USEC={microseconds}")

    def stopping(self) -> None:
        """It ends."""
        self._send("STOPPING=1")

    def extend(self, seconds: float) -> None:
        """It needs so much longer than it was given."""
        self._send(f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}")

    def watchdog(self) -> None:
        """It is well."""
        self._send("WATCHDOG=1")

    def status(self, text: str) -> None:
        """One line for ``systemctl status``; the same again is not sent."""
        if text != self._status:
            self._status = text
            self._send(f"STATUS={text}")

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as skt:
                # The manager may be slow, and nobody here may wait for it.
                skt.setblocking(False)
                skt.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            if not self._failed:
                self._failed = True
                _log.warn(
                    "cannot notify {address}: {reason}",
                    address=repr(self._address),
                    reason=error.strerror or str(error),
                )


def _seconds(microseconds: str) -> float | None:
    """What ``WATCHDOG_USEC`` says, if it is a positive number of 64 bits; or a line in the log."""
    if microseconds.isascii() and microseconds.isdigit() and len(microseconds) <= _DIGITS:
        number = int(microseconds)
        if number:
            return number / 1e6
    _log.warn(
        "WATCHDOG_USEC is {value}, no number of microseconds: no watchdog", value=repr(microseconds)
    )
    return None
