"""
A path at which one process at a time makes a socket: `lockedPath`.

Between a look at who is there and being there oneself lie some system calls, and whoever does the
same meanwhile removes the socket that was just made.  So all of it is done under a lock (flock(2))
of a file beside the path, which is there as long.  Who may make that file may make the socket too:
nobody else can be in the way.  A file that was left by a process which was killed then is taken
over, as its lock went with the process.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from echod.errors import ListenError

__all__ = ["lockedPath"]


@contextmanager
def lockedPath(path: str) -> Iterator[None]:
    """
    Be the only one at ``path`` while the block runs.

    :raises ListenError: another is, at this moment; or the file cannot be used.
    :raises OSError: nothing can be made in that folder.
    """
    folder, name = os.path.split(path)
    beside = os.path.join(folder, f".{name}.lock")  # noqa: PTH118  # of text, as given
    lock = _lock(path, beside)
    try:
        yield
    finally:
        try:
            # While it is locked yet, or it might be another's by then.
            with suppress(FileNotFoundError):
                os.unlink(beside)  # noqa: PTH108  # as above
        finally:
            os.close(lock)


def _lock(path: str, beside: str) -> int:
    """A descriptor of the file, locked."""
    while True:
        try:
            lock = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            if os.path.lexists(beside):
                raise ListenError(
                    f"cannot listen on unix {path}: {beside}: {error.strerror}; remove it"
                ) from error
            raise
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _isAt(lock, beside):
                return lock
        except BlockingIOError as error:
            os.close(lock)
            raise ListenError(
                f"cannot listen on unix {path}: another is about to; who: fuser {beside}"
            ) from error
        except BaseException:
            os.close(lock)
            raise
        # Whoever had it has removed it since.
        os.close(lock)


def _isAt(descriptor: int, path: str) -> bool:
    found = os.fstat(descriptor)
    try:
        named = os.lstat(path)
    except FileNotFoundError:
        return False
    return (found.st_dev, found.st_ino) == (named.st_dev, named.st_ino)
