"""A network of a test's own, whose ports and addresses nobody else has."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import sys
from collections.abc import Iterator

import pytest

__all__ = ["namespace", "needsRoot", "withoutIPv6"]

#: ``socket`` among a machine's system calls.
_SOCKET = {"x86_64": 41, "aarch64": 198}

# socket(AF_INET6, ...) is EAFNOSUPPORT, as where ipv6.disable=1: a filter of seccomp(2).
_WITHOUT_IPV6 = """
import ctypes, errno, os, socket, struct, sys
number, *command = sys.argv[1:]
program = b"".join(struct.pack("HBBI", *instruction) for instruction in [
    (0x20, 0, 0, 0), (0x15, 0, 3, int(number)), (0x20, 0, 0, 16), (0x15, 0, 1, socket.AF_INET6),
    (0x06, 0, 0, 0x00050000 | errno.EAFNOSUPPORT), (0x06, 0, 0, 0x7FFF0000),
])
buffer = ctypes.create_string_buffer(program)
class Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
filter = Filter(len(program) // 8, ctypes.addressof(buffer))
libc = ctypes.CDLL(None)
assert not libc.prctl(38, 1, 0, 0, 0) and not libc.prctl(22, 2, ctypes.byref(filter))
os.execv(command[0], command)
"""

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


def withoutIPv6() -> list[str]:
    """What runs a command as on a kernel that has no IPv6; the test is skipped elsewhere."""
    number = _SOCKET.get(platform.machine())
    if number is None:
        pytest.skip(f"no filter of system calls for {platform.machine()}")
    return [sys.executable, "-c", _WITHOUT_IPV6, str(number)]
