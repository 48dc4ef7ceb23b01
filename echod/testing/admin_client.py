"""
Ask a daemon over a UNIX socket, by its protocol ``admin``: `AdminClient`.

What a test has done over TCP and what it asks here come to the daemon by different sockets, so an
answer may be made before the daemon has seen what came earlier.  `AdminClient.settled` asks until
nothing changes any more.
"""

from __future__ import annotations

import os
import socket
import tempfile
import time
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import msgspec

from echod.config.limits import Limits
from echod.errors import EchodError

__all__ = ["SOCKET", "AdminClient", "listenersOf", "socketFolder"]

#: How many answers in a row must be the same.  The daemon's poller returns all descriptors that
#: are ready, and a request is answered in a turn after the one that has read it.  So from one
#: answer to the next each connection has two turns, and it counts what it finds in each.
SAME = 3
#: Seconds until the next look at connections that end at a tick of the daemon's clock (0.1 s).
AGAIN = 0.01
#: Bytes of a UNIX socket's path, with its final zero (unix(7)).
LONGEST_PATH = 108
#: Where the daemon of `running` is asked, in a folder of its own.
SOCKET = "admin.sock"
#: Connections that may ask the daemon at a time.
ASKING = 16


def socketFolder() -> tempfile.TemporaryDirectory[str]:
    """A folder of ours alone, whose sockets have paths that are not too long."""
    folder = tempfile.TemporaryDirectory(prefix="echod-")
    if len(os.fsencode(Path(folder.name, SOCKET))) < LONGEST_PATH:
        return folder
    folder.cleanup()
    return tempfile.TemporaryDirectory(prefix="echod-", dir="/tmp")


def listenersOf(name: str, path: str) -> str:
    """
    The daemon's configuration: the listener, and the one that tells of it.

    Limits on the command line hold for both, and must not hold for who asks.
    """
    limits = {**msgspec.to_builtins(Limits()), "max_connections": ASKING}
    escaped = path.replace("\\", "\\\\").replace(":", "\\:")
    tables = [
        {"protocol": name, "endpoint": "tcp:0:interface=127.0.0.1"},
        {"protocol": "admin", "endpoint": f"unix:{escaped}:mode=600", **limits},
    ]
    # What JSON writes of text, numbers and lists is TOML.
    return "".join(
        "[[listener]]\n"
        + "".join(
            f"{key} = {msgspec.json.encode(value).decode()}\n"
            for key, value in table.items()
            if value is not None
        )
        for table in tables
    )


class AdminClient:
    """
    Asks one daemon.

    :param path: of the socket.
    :param seconds: that one answer may take.
    :param unsettled: seconds after which `settled` takes what there is.
    """

    def __init__(self, path: str, seconds: float, unsettled: float) -> None:
        self._path = path
        self._seconds = seconds
        self._unsettled = unsettled

    # Any: whatever JSON has, by keys that docs/insight.md tells.
    def ask(self, target: str) -> dict[str, Any]:
        """
        What the path ``target`` gives.

        :raises EchodError: there is no answer, or it is not the document.
        """
        with _Asking(self._path, self._seconds) as asking:
            return asking.get(target)

    def settled(self, number: int) -> dict[str, Any]:
        """
        The counters of the listener ``number``, once they do not change any more.

        :raises EchodError: there is no answer.
        """
        deadline = time.monotonic() + self._unsettled
        with _Asking(self._path, self._seconds) as asking:
            found, same = asking.counters(number), 1
            while same < SAME and time.monotonic() < deadline:
                # First this: what ends between the two is counted by the second.
                ending = found["open"] > 0 and asking.ending(found["listener"])
                if ending:
                    time.sleep(AGAIN)
                before, found = found, asking.counters(number)
                same = 1 if ending or found != before else same + 1
        return found


class _Asking(HTTPConnection):
    """One connection, for requests one after another."""

    def __init__(self, path: str, seconds: float) -> None:
        super().__init__("localhost", timeout=seconds)
        self._path = path

    def __enter__(self) -> _Asking:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def connect(self) -> None:
        """Not to a host."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)

    def get(self, target: str) -> dict[str, Any]:
        try:
            self.request("GET", target)
            answer = self.getresponse()
            body = answer.read()
        except (OSError, HTTPException) as error:
            raise EchodError(f"echod does not answer {target}: {error!r}") from error
        if answer.status != HTTPStatus.OK:
            raise EchodError(f"echod answers {target}: {answer.status} {body.decode()}".rstrip())
        found: dict[str, Any] = msgspec.json.decode(body)
        return found

    def counters(self, number: int) -> dict[str, Any]:
        found: dict[str, Any] = self.get("/counters")["listeners"][number]
        return found

    def ending(self, listener: str) -> bool:
        """
        Whether a connection is over but for the daemon's next look, at a tick of its clock.

        Both sides have finished, and the peer has acknowledged everything meanwhile.
        """
        rows = self.get("/connections?state=finishing&limit=10000")["connections"]
        return any(row["listener"] == listener and not row["unsent"] for row in rows)
