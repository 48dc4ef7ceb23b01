"""
Where a log's text goes: a descriptor, or a file that can be opened anew.

Whole batches of lines go straight to the descriptor (write(2)).  Python's own files would hold a
lock meanwhile, and whoever flushes standard output at the process's end would wait for it.
"""

from __future__ import annotations

import os
import select
from collections.abc import Sequence
from contextlib import suppress
from stat import S_IMODE

__all__ = ["NamedFile", "StandardStream", "TextFile", "writeAll"]


def writeAll(descriptor: int, data: bytes) -> int:
    """
    Write everything, however long that takes; returns how much of it was written.

    Less than everything, if an error came after the beginning.  A descriptor that does not block,
    because somebody else who has it wants it so, is waited for.

    :raises OSError: nothing was written.
    """
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            select.select([], [descriptor], [])
        except OSError:
            if len(view) == len(data):
                raise
            break
    return len(data) - len(view)


class TextFile:
    """
    A descriptor for lines.

    :param descriptor: open for writing; -1: there is none, and lines go nowhere.
    """

    def __init__(self, descriptor: int, encoding: str = "utf-8") -> None:
        self._descriptor = descriptor
        self._encoding = encoding
        # Whether the last line that was written is not whole: a disk was full.
        self._torn = False

    def encode(self, text: str) -> bytes:
        """``text`` as bytes; what the encoding has not is escaped."""
        return text.encode(self._encoding, "backslashreplace")

    def write(self, lines: Sequence[bytes]) -> int:
        """
        Write lines; returns how many went out whole.

        :raises OSError: none did.
        """
        if self._descriptor < 0:
            return len(lines)
        if self._torn:
            lines = [b"\n" + lines[0], *lines[1:]]
        written = writeAll(self._descriptor, b"".join(lines))
        for whole, line in enumerate(lines):
            if written < len(line):
                self._torn = written > 0
                return whole
            written -= len(line)
        self._torn = False
        return len(lines)

    def reopen(self) -> None:
        """Nothing: it has no name."""


class StandardStream(TextFile):
    """Standard output or standard error, as the process was given it."""


class NamedFile(TextFile):
    """
    A file that is appended to, so that whoever truncates it finds the next line at its beginning.

    :raises OSError: it cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        super().__init__(_append(path, 0o666))

    def reopen(self) -> None:
        """
        Open whatever is at the path now; a new file gets the mode of the one before.

        :raises OSError: it cannot be had; the one before goes on.
        """
        old = self._descriptor
        self._descriptor = _append(self._path, S_IMODE(os.fstat(old).st_mode), exact=True)
        os.close(old)


def _append(path: str, mode: int, *, exact: bool = False) -> int:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY
    with suppress(FileNotFoundError):
        return os.open(path, flags)
    descriptor = os.open(path, flags | os.O_CREAT, mode)
    if exact:
        # The umask may be another one by now: that of `twistd` in the background is 077.
        os.fchmod(descriptor, mode)
    return descriptor
