"""
What a command says on standard output and standard error: `writeOut`, `writeError`.

Its exit status is what others act on, so a reader that is gone, a full disk or a closed descriptor
must not change what that status means.  Python by itself ends with a traceback and status 1, or,
where the fault shows only as it flushes at the end, with "Exception ignored" and status 120.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TextIO

from echod.errors import OutputFailed

__all__ = ["FAILED", "NO_READER", "writeError", "writeOut"]

#: Exit status where standard output cannot be written: ``EX_IOERR`` of sysexits(3).
FAILED = 74
#: Exit status where its reader has gone: what a shell shows for SIGPIPE, 128 + 13.
NO_READER = 141


def writeOut(text: str) -> None:
    """
    Write ``text`` to standard output, as it is, and flush.

    A closed standard output is a reader that wants the status alone: nothing is written then.

    :raises OutputFailed: it cannot be written; nothing more goes to standard output.
    """
    if sys.stdout is None:
        return
    try:
        _write(sys.stdout, text)
    except BrokenPipeError as error:
        raise OutputFailed("", NO_READER) from error
    except OSError as error:
        raise OutputFailed(
            f"standard output cannot be written: {error.strerror or error}; redirect it", FAILED
        ) from error


def writeError(text: str) -> None:
    """Write one line to standard error; where nobody can be told, nobody is."""
    if sys.stderr is not None:
        with suppress(OSError):
            _write(sys.stderr, f"{text}\n")


def _write(stream: TextIO, text: str) -> None:
    # Whatever the locale has no letters for is escaped.
    encoding = stream.encoding or "utf-8"
    try:
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()
    except OSError:
        # What is left in the buffer must not fail once more as Python ends (signal(7) of Python's
        # library, "Note on SIGPIPE").
        with suppress(OSError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
        raise
