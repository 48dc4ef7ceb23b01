"""Gevent's `StreamServer` as an echo server: ``python -m benchmarks.peers.gevent_echo PORT``."""

from __future__ import annotations

import importlib
import sys
from typing import Any


def echo(socket: Any, address: object) -> None:
    """Send back what comes; `StreamServer` closes the socket afterwards."""
    try:
        while data := socket.recv(65536):
            socket.sendall(data)
    except ConnectionError:
        pass


if __name__ == "__main__":
    # By name, so that type checking does not depend on what is installed.
    server: Any = importlib.import_module("gevent.server").StreamServer
    server(("127.0.0.1", int(sys.argv[1])), echo, backlog=4096).serve_forever()
