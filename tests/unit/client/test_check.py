"""`echod.client.check`: what it refuses before it connects, and what it tells of itself."""

from __future__ import annotations

import re
import socket
import ssl
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from echod.client.blocking import _Secured
from echod.client.check import LOCAL, Status, runCheck
from echod.errors import CheckFailed, EchodError
from echod.output import FAILED, NO_READER
from echod.tls.context import ClientTLS
from echod.tls.record_pump import RecordPump
from echod.wire.proxy_header import parseHeader
from tests.certificates import Certificates


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ([], "required: ENDPOINT; see --help"),
        (["tcp:1", "tcp:2"], "unrecognized arguments: tcp:2"),
        (["tcp:1", "--protcol", "raw"], "unrecognized arguments: --protcol"),
        (["tcp:1", "--proto", "raw"], "unrecognized arguments: --proto"),
        (["tcp:1", "--protocol", "udp"], "invalid choice: 'udp'"),
        (["tcp:1", "--timeout", "soon"], "'soon' is no time: write seconds, up to 3600"),
        (["tcp:1", "--timeout", "0"], "'0' is no time"),
        (["tcp:1", "--timeout", "nan"], "'nan' is no time"),
        (["tcp:1", "--timeout", "inf"], "'inf' is no time"),
        (["tcp:1", "--size", "0"], "'0' is no size: write bytes, 1 to 65507"),
        (["tcp:1", "--size", "65508"], "'65508' is no size"),
        (["tcp:1", "--size", "²"], "'²' is no size"),
        (["tcp:1", "--protocol", "line", "--size", "15"], "--size 15 is too short for a line"),
        (["udp:1", "--protocol", "dns"], "--protocol dns is for streams"),
        (["tcp:1", "--ca", "ca.pem"], "--ca is for TLS, and 'tcp:1' is not: write tls:PORT"),
        (["unix:/a", "--server-name", "a"], "--server-name is for TLS"),
        (["udp:1", "--proxy", "--size", "65507"], "--size 65507 is too long for a datagram behind"),
        (["tls:1", "--key", "key.pem"], "--key 'key.pem' needs its certificate: give --cert"),
        (["tls:1", "--ca", "/no\nfile"], r"cannot read /no\nfile: No such file or directory"),
        (["tls:1", "--server-name", "a..b"], "'a..b' is no name of a server"),
        (["tcp:1\udcff"], r"'1\udcff' in 'tcp:1\udcff' is no port"),
    ],
)
def test_usage(arguments: list[str], part: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One line that names the value and the mend, and status 1."""
    assert runCheck(arguments) == int(Status.USAGE) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("echod check: ")
    assert len(said.err.splitlines()) == 1
    assert part in said.err


def test_notACertificate(certificates: Certificates, capsys: pytest.CaptureFixture[str]) -> None:
    """A file of the caller's that cannot be used is no fault of TLS's."""
    assert runCheck(["tls:1", "--cert", certificates.expired]) == Status.USAGE
    assert "renew it" in capsys.readouterr().err


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    """It tells every option, endpoint word and exit status."""
    with pytest.raises(SystemExit) as ended:
        runCheck(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    statuses = [*map(int, Status), FAILED, NO_READER]
    assert re.findall(r"^  (\d+)  ", text, re.MULTILINE) == [str(status) for status in statuses]
    for word in ("tcp:PORT", "tls:PORT", "udp:PORT", "unix:PATH", "HOST:PORT", "health"):
        assert f"\n  {word}" in text


def test_itsHeader() -> None:
    """P4: what ``--proxy`` sends is a LOCAL header, and nothing more."""
    header, length = parseHeader(LOCAL)
    assert header is not None
    assert (header.version, header.source, length) == (2, None, len(LOCAL))


def test_error() -> None:
    assert issubclass(CheckFailed, EchodError)
    assert CheckFailed("why", 3).status == 3


def test_importsLittle() -> None:
    """A probe is quick: no Twisted, no msgspec, no metadata; no ``ssl`` where there is no TLS."""
    program = (
        "import sys\n"
        "from echod.client.check import runCheck\n"
        "assert runCheck(['tcp:1:host=127.0.0.1', '--timeout', '5']) in (0, 2, 4)\n"
        "print(*sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert "echod.client.check" in loaded
    unwanted = {"twisted", "zope", "msgspec", "cryptography", "ssl", "importlib.metadata"}
    assert unwanted & loaded == set()


def test_recordsBeforeOurEnd(certificates: Certificates) -> None:
    """
    Records that have come by the time of our close_notify are read behind it.

    OpenSSL refuses them as it sends one (APPLICATION_DATA_AFTER_CLOSE_NOTIFY): what `check` said
    depended on when they came.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server)
    server = RecordPump(partial(context.wrap_bio, server_side=True))
    security: Any = ClientTLS(ca=certificates.ca).to("127.0.0.1")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        connection = _Secured(ours, time.monotonic() + 20, security)
        for this, that in [(connection._pump, server), (server, connection._pump)] * 2:
            with suppress(ssl.SSLWantReadError):
                this.tls.do_handshake()
            that.feed(this.records())
        server.tls.write(b"late")
        connection._pump.feed(server.records())
        connection.finish()
        assert connection.receive() == b"late"
        assert theirs.recv(1000)
