"""
Twisted's own echo servers: ``python -m benchmarks.peers.twisted_echo PATTERN PORT [PEM]``.

PATTERN is ``raw`` (`twisted.protocols.wire.Echo`, as shipped), ``line`` (a `LineOnlyReceiver`)
or ``frame`` (an `Int16StringReceiver`); PEM, a certificate and its key, makes it speak TLS.
"""

# mypy: allow-untyped-calls
# Twisted's receivers have no annotations.

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from twisted.internet.interfaces import IReactorSSL, IReactorTCP
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.basic import Int16StringReceiver, LineOnlyReceiver
from twisted.protocols.wire import Echo


class LineEcho(LineOnlyReceiver):
    """Each line goes back."""

    def lineReceived(self, line: bytes) -> None:
        """Send it back."""
        self.sendLine(line)


class FrameEcho(Int16StringReceiver):
    """Each string goes back."""

    def stringReceived(self, string: bytes) -> None:
        """Send it back."""
        self.sendString(string)


_PATTERNS: dict[str, type[Protocol]] = {"raw": Echo, "line": LineEcho, "frame": FrameEcho}


def main(pattern: str, port: int, pem: str | None = None) -> None:
    """Serve until killed, on the default reactor."""
    from twisted.internet import reactor

    factory: Any = Factory.forProtocol(_PATTERNS[pattern])
    where: Any = {"backlog": 4096, "interface": "127.0.0.1"}
    if pem:
        # Not at the top: it needs pyOpenSSL, and the other rows do not.
        from twisted.internet.ssl import PrivateCertificate

        options = PrivateCertificate.loadPEM(Path(pem).read_text()).options()
        IReactorSSL(reactor).listenSSL(port, factory, options, **where)
    else:
        IReactorTCP(reactor).listenTCP(port, factory, **where)
    reactor.run()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
