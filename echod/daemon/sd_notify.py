"""
What the service manager is told (sd_notify(3)): `Notifier`.

One datagram a message, to the socket that ``NOTIFY_SOCKET`` names.  Without the variable nothing is
sent and nothing is logged; where sending fails, that is said once.  A manager that is slow is not
waited for: what it has no room for is kept, the newest of each kind, and sent later.  The variables
are taken out of the environment, so that no child believes it is meant.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping
from errno import EAGAIN, EMFILE, ENFILE, ENOBUFS, ENOMEM

from twisted.logger import Logger

__all__ = ["Notifier"]

_log = Logger()

#: Bytes of a message at most: systemd ignores a longer one (its ``NOTIFY_BUFFER_MAX``, which is
#: ``PIPE_BUF``).
LONGEST = 4096
#: Errors that pass: the manager has no room, or there is no descriptor or memory for the socket.
_PASSING = frozenset({EAGAIN, EMFILE, ENFILE, ENOBUFS, ENOMEM})
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
        # What could not be sent yet, by kind, the oldest first; written by _send and sendWaiting.
        self._waiting: dict[str, str] = {}
        meant = address != "" and process in ("", str(os.getpid()))
        self.watchdogInterval = _seconds(interval) if meant and interval else None

    @property
    def waits(self) -> bool:
        """Whether a message could not be sent yet: `sendWaiting` is to be called later."""
        return bool(self._waiting)

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
        """It needs so much longer than it was given; this is not kept, it is said again anyway."""
        self._deliver(f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}")

    def watchdog(self) -> None:
        """It is well; this is not kept, later it may be otherwise."""
        self._deliver("WATCHDOG=1")

    def status(self, text: str) -> None:
        """One line for ``systemctl status``, cut if need be; the same again is not sent."""
        if text != self._status:
            self._status = text
            message = f"STATUS={text}".encode()
            if len(message) > LONGEST:
                message = message[: LONGEST - len("...")] + b"..."
            self._send(message.decode(errors="ignore"))

    def sendWaiting(self) -> None:
        """Send what could not be sent before, as far as that can be done by now."""
        for kind, message in [*self._waiting.items()]:
            if not self._deliver(message):
                return
            del self._waiting[kind]

    def _send(self, *lines: str) -> None:
        kind = lines[0].partition("=")[0]
        # Behind what is older.
        self._waiting.pop(kind, None)
        self._waiting[kind] = "\n".join(lines)
        self.sendWaiting()

    def _deliver(self, message: str) -> bool:
        """Send a message; ``False`` if that may be done later."""
        if not self._address:
            return True
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as skt:
                # The manager may be slow, and nobody here may wait for it.
                skt.setblocking(False)
                skt.sendto(message.encode(), self._address)
        except OSError as error:
            if error.errno in _PASSING:
                return False
            if not self._failed:
                self._failed = True
                _log.warn(
                    "cannot notify {address}: {reason}",
                    address=repr(self._address),
                    reason=error.strerror or str(error),
                )
        return True


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
