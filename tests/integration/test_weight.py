"""What an idle daemon costs: the modules that it has loaded."""

from __future__ import annotations

import sys

from tests.certificates import Certificates
from tests.integration.daemon import Daemon, exchange
from tests.tlspeer import Peer

#: ``twistd``, which prints the modules that it has loaded as it begins to serve, and at its end.
#: As where pyOpenSSL is not installed: Twisted's reactor loads any that it finds.
PROGRAM = """
import atexit
import sys

sys.modules["OpenSSL"] = None


def tell(when):
    loaded = [name for name, module in sys.modules.items() if module is not None]
    print(when, *loaded, file=sys.__stdout__, flush=True)


atexit.register(tell, "at the end:")

from twisted.internet import reactor
from twisted.scripts.twistd import run

reactor.callWhenRunning(tell, "at the start:")
run()
"""
COMMAND = [sys.executable, "-c", PROGRAM, "-n", "--pidfile=", "echod"]

#: Packages that are large, or slow to load, and of no use to a daemon without TLS.  Twisted itself
#: loads asyncio (in `twisted.internet.defer`), and http.cookiejar with urllib, email and ssl (in
#: `twisted.python.compat`).
UNUSED = {
    "OpenSSL",
    "_cffi_backend",
    "cryptography",
    "idna",
    "service_identity",
    "sqlite3",
    "twisted.conch",
    "twisted.protocols.tls",
    "twisted.web",
    "xml",
    "echod.client",
    "echod.testing",
}


def loaded(daemon: Daemon, when: str) -> set[str]:
    """What it had loaded then: names of modules, and of all packages that they are in."""
    _, _, names = daemon.waitForLine(f"at the {when}:").partition(":")
    parts = (name.split(".") for name in names.split())
    return {".".join(each[:end]) for each in parts for end in range(1, len(each) + 1)}


def test_withoutTLS() -> None:
    """Neither at the start nor in service does one without TLS load what only TLS needs."""
    words = ["--listen", "raw=tcp:0", "--listen", "udp=udp:0", "--listen", "line=tcp:0"]
    with Daemon(*words, command=COMMAND) as daemon:
        assert exchange(daemon.connect(), b"hello") == b"hello"
        assert daemon.stop() == 0
        modules = loaded(daemon, "end")
    assert {"twisted.internet.reactor", "echod.protocols.raw"} <= modules
    assert not modules & UNUSED


def test_tlsBeforeTheFirstConnection(certificates: Certificates) -> None:
    """
    One with TLS loads nothing for it amid a handshake.

    That would hold everybody up; and after ``--chroot`` it could not be found.
    """
    listener = f"raw=tls:0:interface=127.0.0.1:cert={certificates.server}"
    more = f":client_auth=require:ca={certificates.ca}"
    with Daemon("--listen", listener + more, command=COMMAND) as daemon:
        before = loaded(daemon, "start")
        context = certificates.context()
        context.load_cert_chain(certificates.client)
        with Peer(("127.0.0.1", daemon.ports["raw"]), context) as peer:
            peer.shakeHands()
            peer.ping()
        daemon.stop()
        after = loaded(daemon, "end")
    assert "cryptography.x509" in before
    assert not after - before
