"""
``python -m echod``: the options of ``twistd echod`` without ``twistd``.

In the foreground, with no pid file, no plugin discovery and the log on standard output.
``python -m echod check`` is something else: a client, see `echod.client.check`.
"""

from __future__ import annotations

import sys

from echod import startup


def main() -> None:
    """Run until a signal ends it; or check, and end."""
    if sys.argv[1:2] == ["check"]:
        startup.beCommand()
        startup.fillDescriptors()
        from echod.client.check import main as check

        raise SystemExit(check(sys.argv[2:]))
    if startup.printsAlone(sys.argv[1:]):
        startup.beCommand()
    else:
        startup.begin()
    # Not before: a probe is there to be quick.
    from twisted.logger import globalLogBeginner, textFileLogObserver

    from echod.daemon.options import Options, makeService

    options = Options()
    options.synopsis = "Usage: python -m echod [options], or python -m echod check ENDPOINT"
    options.parseOptions()
    from twisted.internet import reactor

    service = makeService(options)
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stdout)])
    service.privilegedStartService()
    service.startService()
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    reactor.run()


if __name__ == "__main__":
    main()
