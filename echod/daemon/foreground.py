"""
``echod serve`` and ``echod protocols``: the options of ``twistd echod`` without ``twistd``.

It serves in the foreground, with no pid file, no plugin discovery, and the log on standard output.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from twisted.logger import globalLogBeginner, textFileLogObserver

from echod.daemon.commands import COMMANDS, synopsis
from echod.daemon.options import Options, makeService, printProtocols
from echod.errors import OutputFailed
from echod.output import writeError, writeOut
from echod.server.registry import discover

__all__ = ["protocols", "serve"]


def serve(arguments: Sequence[str]) -> int:
    """
    Serve until a signal ends it.

    :raises SystemExit: see `Options.parseOptions`.
    :raises EchodError: it cannot start; `printEchodErrors` has it told.
    """
    options = Options()
    options.synopsis = synopsis()
    options.parseOptions(arguments)
    from twisted.internet import reactor

    service = makeService(options)
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stdout)])
    service.privilegedStartService()
    service.startService()
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    reactor.run()
    return 0


def protocols(arguments: Sequence[str]) -> int:
    """
    Print what ``serve --list-protocols`` prints.

    :returns: 0; 1 after one line on standard error; or that of `OutputFailed`.
    """
    try:
        if [*arguments] in (["--help"], ["-h"]):
            command = COMMANDS["protocols"]
            writeOut(f"Usage: echod {command.usage}\n\n{command.what.capitalize()}.\n")
        elif arguments:
            writeError(f"echod protocols: {arguments[0]!r} is too much; see --help")
            return 1
        else:
            printProtocols(discover())
    except OutputFailed as error:
        if str(error):
            writeError(f"echod protocols: {error}")
        return error.status
    return 0
