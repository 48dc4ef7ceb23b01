"""What an idle daemon costs: the modules that it has loaded, and how often it wakes up."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.certificates import Certificates
from tests.integration.daemon import Daemon, exchange, idle
from tests.tlspeer import Peer

#: ``twistd``, which writes the modules that it has loaded to the files ``start`` and ``end``.
#: As where pyOpenSSL is not installed: Twisted's reactor loads any that it finds.
PROGRAM = """
import atexit
import sys

sys.modules["OpenSSL"] = None


def tell(when):
    loaded = [name for name, module in sys.modules.items() if module is not None]
    with open(when, "w") as file:
        print(*loaded, file=file)


# What a tracer of tests has loaded is nobody's here.
tell("begin")
atexit.register(tell, "end")

from twisted.internet import reactor
from twisted.scripts.twistd import run

reactor.callWhenRunning(tell, "start")
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


def loaded(file: Path) -> set[str]:
    """What it had loaded then: names of modules, and of all packages that they are in."""
    parts = (name.split(".") for name in file.read_text().split())
    return {".".join(each[:end]) for each in parts for end in range(1, len(each) + 1)}


def test_withoutTLS(tmp_path: Path) -> None:
    """Neither at the start nor in service does one without TLS load what only TLS needs."""
    words = ["--listen", "raw=tcp:0", "--listen", "udp=udp:0", "--listen", "line=tcp:0"]
    with Daemon(*words, command=COMMAND, cwd=tmp_path) as daemon:
        assert exchange(daemon.connect(), b"hello") == b"hello"
        assert daemon.stop() == 0
        modules = loaded(tmp_path / "end") - loaded(tmp_path / "begin")
    assert {"twisted.internet.reactor", "echod.protocols.raw"} <= modules
    assert not modules & UNUSED


def test_tlsBeforeTheFirstConnection(certificates: Certificates, tmp_path: Path) -> None:
    """
    One with TLS loads nothing for it amid a handshake.

    That would hold everybody up; and after ``--chroot`` it could not be found.
    """
    listener = f"raw=tls:0:interface=127.0.0.1:cert={certificates.server}"
    more = f":client_auth=require:ca={certificates.ca}"
    with Daemon("--listen", listener + more, command=COMMAND, cwd=tmp_path) as daemon:
        before = loaded(tmp_path / "start")
        context = certificates.context()
        context.load_cert_chain(certificates.client)
        with Peer(("127.0.0.1", daemon.ports["raw"]), context) as peer:
            peer.shakeHands()
            peer.ping()
        daemon.stop()
        after = loaded(tmp_path / "end")
    assert "cryptography.x509" in before
    assert not after - before


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_doesNotWakeUp(certificates: Certificates, tmp_path: Path) -> None:
    """No wake-up while no connection is open, also after there was one: 2 in 10 s at most."""
    words = ["raw=tcp:0", "udp=udp:0", f"raw=unix:{tmp_path}/socket"]
    words.append(f"line=tls:0:interface=127.0.0.1:cert={certificates.server}")
    with Daemon(*(word for each in words for word in ("--listen", each))) as daemon:
        assert exchange(daemon.connect(), b"hello") == b"hello"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(10)
            client.sendto(b"hello", ("127.0.0.1", daemon.ports["udp/udp"]))
            assert client.recv(10) == b"hello"
        idle(2.5, "it rests a second after the last of them, and nothing tells of that")
        command = ["strace", "-f", "-e", "trace=epoll_wait,epoll_pwait", "-p", str(daemon.pid)]
        tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        idle(10, "in which it is not to wake up")
        tracer.send_signal(signal.SIGINT)
        _, traced = tracer.communicate(timeout=10)
        assert "epoll" in traced
        assert len(re.findall(r"= \d", traced)) <= 2
        assert exchange(daemon.connect(), b"again") == b"again"
