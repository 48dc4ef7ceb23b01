"""
Driving the load generator, ``csrc/load.c``: its lines of JSON in, an `Outcome` out.

The generator stops twice, after connecting and after its work, and waits for a line; what lies
between those two pauses is what is measured.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.servers import Children

__all__ = ["Generator", "LoadError", "Outcome", "parseLine", "parseOutcome"]

#: Seconds for connecting, and for what is under way at the end; the generator itself gives up
#: after 10 without an echo.
PATIENCE = 60.0


class LoadError(Exception):
    """The load could not be put on the server; the message is the generator's."""


@dataclass(frozen=True)
class Outcome:
    """
    What the generator saw.

    :ivar count: messages (lines, frames, connections) that came back; ``bytes``: bytes.
    :ivar short: connections that ended without all of their bytes.
    :ivar wall: seconds from the first byte sent to the last one back.
    :ivar cpu: seconds of CPU that the generator itself took in that time.
    :ivar latency: percentiles in seconds, by name (``p50``, ``p99``, ``alone_p50``, ...).
    """

    count: int
    bytes: int
    short: int
    wall: float
    cpu: float
    latency: Mapping[str, float]


def parseLine(text: str) -> dict[str, Any]:
    """
    One line of the generator.

    :raises LoadError: if it reports an error, or is no line of its.
    """
    try:
        line = json.loads(text)
    except ValueError as error:
        raise LoadError(
            f"the load generator ended early ({text.strip() or 'no word'!r})"
        ) from error
    if not isinstance(line, dict):
        raise LoadError(f"the load generator wrote {text.strip()!r}")
    if "error" in line:
        raise LoadError(str(line["error"]))
    return line


def parseOutcome(text: str) -> Outcome:
    """
    The generator's result.

    :raises LoadError: as `parseLine`, and if something is missing.
    """
    line = parseLine(text)
    try:
        return Outcome(
            count=line["count"],
            bytes=line["bytes"],
            short=line["short"],
            wall=line["wall"] / 1e9,
            cpu=line["cpu"] / 1e9,
            latency={
                key: value / 1e9
                for key, value in line.items()
                if key.removeprefix("alone_") in ("p50", "p90", "p99", "longest")
            },
        )
    except KeyError as error:
        raise LoadError(f"the load generator did not say {error}") from error


class Generator:
    """
    One run of the generator; a context manager that ends it.

    :param children: starts it.
    :param command: the program, its mode and keys.
    :param cpu: the CPU it is pinned to.
    :param seconds: how long it works.
    """

    def __init__(self, children: Children, command: list[str], cpu: int, seconds: float) -> None:
        self._seconds = seconds
        self._children = children
        self._process = children.start(command, cpu, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __enter__(self) -> Generator:
        return self

    def __exit__(self, *error: object) -> None:
        self._children.end(self._process)

    def connected(self) -> int:
        """Wait until all connections are there; returns the bytes that stalled ones sent."""
        return int(parseLine(self._line()).get("ready", 0))

    def work(self) -> Outcome:
        """Let it work, and wait for its result.  The connections stay open."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        return parseOutcome(self._line())

    def _line(self) -> str:
        """The next line; empty if there is none any more."""
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        # Not select(2): it knows descriptors below 1024 alone.
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        deadline = time.monotonic() + self._seconds + PATIENCE
        text = b""
        while not text.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0 or not poller.poll(left * 1000):
                raise LoadError(f"no word from the load generator for {PATIENCE:g} s")
            more = os.read(descriptor, 65536)
            if not more:
                break
            text += more
        return text.decode()
