"""
The command ``echod``, and the same as ``python -m echod``.

`echod.daemon.commands.COMMANDS` has its words; without one it serves.
"""

from __future__ import annotations

import sys

from echod import startup
from echod.daemon.commands import COMMANDS, load, split, unknown

__all__ = ["main"]


def main() -> None:
    """
    Do what the command line says.

    :raises SystemExit: always, with the status of what was done.
    """
    word, arguments = split(sys.argv[1:])
    command = COMMANDS.get(word)
    if command is not None and command.serves and not startup.printsAlone(arguments):
        # First of all: from here on no signal is lost.
        startup.begin()
    else:
        startup.beCommand()
        startup.fillDescriptors()
    if command is None:
        from echod.output import writeError

        writeError(f"echod: {unknown(word)}")
        raise SystemExit(1)
    raise SystemExit(load(word)(arguments))


if __name__ == "__main__":
    main()
