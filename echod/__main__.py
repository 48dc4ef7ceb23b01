"""
``python -m echod``: the options of ``twistd echod`` without ``twistd``.

In the foreground, with no pid file, no plugin discovery and the log on standard output.
"""

from __future__ import annotations

import sys

from twisted.logger import globalLogBeginner, textFileLogObserver

from echod.tap import Options, makeService


def main() -> None:
    """Run until a signal ends it."""
    options = Options()
    options.synopsis = "Usage: python -m echod [options]"
    options.parseOptions()
    from twisted.internet import reactor

    service = makeService(options)
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stdout)], redirectStandardIO=False)
    service.privilegedStartService()
    service.startService()
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    reactor.run()


if __name__ == "__main__":
    main()
