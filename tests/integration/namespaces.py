"""A network of a test's own, whose ports and addresses nobody else has."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator

import pytest

__all__ = ["namespace", "needsRoot"]

needsRoot = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes network namespaces")


@contextlib.contextmanager
def namespace(*setUp: str) -> Iterator[list[str]]:
    """
    A network namespace with its loopback up; yields what runs a command in it.

    :param setUp: commands to run in it first; the test is skipped if one of them fails.
    """
    name = f"echod-{os.getpid()}"
    commands = [f"ip netns add {name}", f"ip netns exec {name} ip link set lo up"]
    commands += [f"ip netns exec {name} {command}" for command in setUp]
    try:
        for command in commands:
            done = subprocess.run(command.split(), capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"{command}: {done.stderr.strip()}")
        yield ["ip", "netns", "exec", name]
    finally:
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
