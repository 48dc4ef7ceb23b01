"""
A network of a test's own, whose ports and addresses nobody else has.

And kernels that lack something.
"""

from __future__ import annotations

import contextlib
import os
import platform
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from errno import EAFNOSUPPORT, EPERM

import pytest

__all__ = ["namespace", "needsRoot", "withoutIPv6", "withoutSplice"]

#: Numbers of system calls, by machine.
_SOCKET = {"x86_64": 41, "aarch64": 198}
_SPLICE = {"x86_64": 275, "aarch64": 76}
#: Instructions of a filter (seccomp(2)): load a word of the call, skip if it is unequal, end.
_LOAD, _UNLESS, _END = 0x20, 0x15, 0x06
#: How it ends: with an error of that number, or as if there were no filter.
_ERROR, _ALLOW = 0x00050000, 0x7FFF0000

# Becomes a command that has a filter of system calls.
_FILTERED = """
import ctypes, os, sys
program, *command = sys.argv[1:]
buffer = ctypes.create_string_buffer(bytes.fromhex(program))
class Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
filter = Filter(len(program) // 16, ctypes.addressof(buffer))
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
    """
    What runs a command as on a kernel that has no IPv6; the test is skipped elsewhere.

    ``socket(AF_INET6, ...)`` is EAFNOSUPPORT, as where ``ipv6.disable=1``.
    """
    return _filtered(
        (_LOAD, 0, 0, 0),
        (_UNLESS, 0, 3, _number(_SOCKET)),
        # The first argument.
        (_LOAD, 0, 0, 16),
        (_UNLESS, 0, 1, socket.AF_INET6),
        (_END, 0, 0, _ERROR | EAFNOSUPPORT),
        (_END, 0, 0, _ALLOW),
    )


def withoutSplice() -> list[str]:
    """What runs a command that may not call splice(2), as ``SystemCallFilter=~splice`` does."""
    return _filtered(
        (_LOAD, 0, 0, 0),
        (_UNLESS, 0, 1, _number(_SPLICE)),
        (_END, 0, 0, _ERROR | EPERM),
        (_END, 0, 0, _ALLOW),
    )


def _number(calls: dict[str, int]) -> int:
    number = calls.get(platform.machine())
    if number is None:
        pytest.skip(f"no filter of system calls for {platform.machine()}")
    return number


def _filtered(*program: tuple[int, int, int, int]) -> list[str]:
    packed = b"".join(struct.pack("HBBI", *instruction) for instruction in program)
    return [sys.executable, "-c", _FILTERED, packed.hex()]
