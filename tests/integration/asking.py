"""What a daemon's admin listener at a UNIX socket answers to a test."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

from tests.integration.daemon import PATIENCE, receiveAll

__all__ = ["ask", "closed"]


def ask(path: Path, target: str) -> Any:
    """
    What is at ``target``.

    :param path: of the listener's socket.
    :returns: a document's value; other answers as text.
    """
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(PATIENCE)
        client.connect(str(path))
        client.sendall(f"GET {target} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        head, _, body = receiveAll(client).partition(b"\r\n\r\n")
    assert head.split()[1] == b"200", (head, body)
    return json.loads(body) if b"application/json" in head else body.decode()


def closed(path: Path, listener: str, reason: str = "") -> list[dict[str, Any]]:
    """Those of a listener that are gone, the newest first."""
    rows = ask(path, f"/closed?limit=10000&reason={reason}" if reason else "/closed?limit=10000")
    return [row for row in rows["connections"] if row["listener"] == listener]
