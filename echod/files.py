"""Files that the daemon believes: read only where nobody else may have written them."""

from __future__ import annotations

import os
import stat
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from pathlib import Path

from echod.errors import ConfigurationError

__all__ = ["anybodyReads", "checkEncoding", "readTrusted"]


def readTrusted(path: str) -> bytes:
    """
    What is in a file that only its owner and group may write, as its folder.

    :raises ConfigurationError: it cannot be read, or anybody may write it or its folder.
    """
    try:
        with open(path, "rb") as file:
            found = os.fstat(file.fileno())
            if stat.S_ISREG(found.st_mode):
                folder = Path(path).resolve().parent
                _checkWriters(path, found.st_mode)
                _checkWriters(str(folder), folder.stat().st_mode)
            return file.read()
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from error


def checkEncoding(path: str, data: bytes) -> None:
    """
    Look at how a file begins.

    :raises ConfigurationError: Windows has saved it as UTF-16 (RFC 3629 section 6: UTF-8 it is).
    """
    if data.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
        raise ConfigurationError(f"{path}: UTF-16, by its byte order mark: save it as UTF-8")


def anybodyReads(path: str) -> bool:
    """Whether every user of the system may read it."""
    return bool(Path(path).stat().st_mode & stat.S_IROTH)


def _checkWriters(path: str, mode: int) -> None:
    # In a sticky folder such as /tmp nobody can replace the files of others.
    if mode & stat.S_IWOTH and not (stat.S_ISDIR(mode) and mode & stat.S_ISVTX):
        raise ConfigurationError(f"anybody may write to {path}: chmod o-w it, or use another place")
