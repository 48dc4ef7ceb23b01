"""
Which congestion control TCP uses here, and another one for a run: ``--congestion NAME``.

The sender decides it, and on loopback it decides how much lies in one segment and when it goes.
Another one is used in a network namespace of this process's own, so that nothing of the
machine changes.  There the routes of the loopback interface name it (``congctl`` of
`ip-route(8)`), because `tcp(7)`'s ``tcp_congestion_control`` takes in a namespace only those that
the machine lets every user choose.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import subprocess
from pathlib import Path

__all__ = ["CongestionError", "available", "inUse", "use"]

_AVAILABLE = Path("/proc/sys/net/ipv4/tcp_available_congestion_control")
_CLONE_NEWNET = 0x40000000
_ROUTES = ("127.0.0.0/8", "127.0.0.1/32")


class CongestionError(Exception):
    """What was asked for cannot be had; the message names it, and what would help."""


def available() -> list[str]:
    """Those that the kernel has loaded; none if it does not say."""
    try:
        return _AVAILABLE.read_text().split()
    except OSError:
        return []


def inUse() -> str:
    """What both ends of a connection over loopback use now; ``unknown`` if they differ."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
    ):
        accepted, _ = listener.accept()
        with accepted:
            names = {_of(client), _of(accepted)}
    return names.pop() if len(names) == 1 else "unknown"


def use(name: str) -> None:
    """
    Move this thread, and what it starts, to a network namespace in which that one is used.

    :raises CongestionError: if the kernel has none of that name, or this user may not, or there is
        no ``ip``.
    """
    ip = shutil.which("ip")
    if name not in available():
        raise CongestionError(
            f"{name!r} is no congestion control that the kernel has loaded; there are:"
            f" {', '.join(available())}. Take one of these, or load it: modprobe tcp_{name}"
        )
    if ip is None:
        raise CongestionError(f"{name!r} needs the program ip (Debian's package: iproute2)")
    try:
        _unshare()
    except OSError as error:
        raise CongestionError(
            f"{name!r} needs a network namespace of its own: {error.strerror}."
            " Run it as root, or in: unshare --map-root-user"
        ) from error
    _run(name, [ip, "link", "set", "lo", "up"])
    for route in _ROUTES:
        words = f"route replace local {route} dev lo table local proto kernel scope host"
        _run(name, [ip, *words.split(), "src", "127.0.0.1", "congctl", name])
    if inUse() != name:
        raise CongestionError(f"{name!r} was asked for, but connections use {inUse()!r}")


def _of(connection: socket.socket) -> str:
    name = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
    return name.rstrip(b"\0").decode()


def _unshare() -> None:
    """Leave the network namespace; only this thread, and this process has but one."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _run(name: str, command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CongestionError(f"{name!r}: {' '.join(command)}: {done.stderr.strip()}")
