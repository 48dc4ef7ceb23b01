"""UNIX sockets with clients of other making: OpenBSD's netcat, Ncat, socat, curl, s_client."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.certificates import Certificates
from tests.integration.daemon import PATIENCE
from tests.integration.loaded import LoadedDaemon as Daemon
from tests.integration.peers import (
    assertUnharmed,
    configured,
    exchangeAtOnce,
    exchangeInTurns,
    needs,
    noise,
)

#: Each client's command line; each sends its input, then its end, and prints until ours.
CLIENTS = {
    "nc": "nc -N -U {folder}/raw.sock",
    "ncat": "ncat -U {folder}/raw.sock",
    "socat": "socat -t 30 - UNIX-CONNECT:{folder}/raw.sock",
    "socat, no file": "socat -t 30 - ABSTRACT-CONNECT:{name}",
}
PACKAGES = {"nc": "netcat-openbsd"}
clients = pytest.mark.parametrize(
    "client",
    [
        pytest.param(client, marks=needs(client.split(",")[0], PACKAGES.get(client, "")))
        for client in CLIENTS
    ],
)

NAME = f"echod-peers-{os.getpid()}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the daemon's sockets."""
    return tmp_path_factory.mktemp("unix")


@pytest.fixture(scope="module", autouse=True)
def daemon(folder: Path, certificates: Certificates) -> Iterator[Daemon]:
    """No client does anything wrong: none is refused, broken or owed anything."""
    config = configured(
        folder,
        {"protocol": "raw", "endpoint": f"unix:{folder}/raw.sock"},
        {"protocol": "raw", "endpoint": f"unix:@{NAME}"},
        {
            "protocol": "raw",
            "endpoint": f"unix:{folder}/tls.sock",
            "tls": {"cert": certificates.server},
        },
        {"protocol": "line", "endpoint": f"unix:{folder}/line.sock", "options": {"quit": "quit"}},
        {"protocol": "whoami", "endpoint": f"unix:{folder}/whoami.sock"},
    )
    with Daemon(config) as daemon:
        yield daemon
        for counters in daemon.allCounters()["listeners"]:
            assert (counters["refused"], counters["resets"], counters["cut"]) == ({}, 0, 0)
            assert counters["closed"].keys() <= {"eof", "quit"}
        assertUnharmed(daemon)
        assert daemon.stop() == 0


def run(command: str, data: bytes) -> bytes:
    """Give ``data`` to a client; what it prints."""
    done = subprocess.run(
        command.split(), input=data, capture_output=True, timeout=PATIENCE, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout


SIZES = [0, 1, 65537, 3_000_000]


@clients
def test_halfClose(folder: Path, client: str) -> None:
    """E1: `client < file > copy`, five times: the files do not differ."""
    command = CLIENTS[client].format(folder=folder, name=NAME)
    for size in SIZES * 5:
        data = noise(size)
        assert run(command, data) == data


@needs("socat")
def test_ourEnd(folder: Path) -> None:
    """C2: our end reaches socat behind the last answer."""
    command = f"socat -t 30 - UNIX-CONNECT:{folder}/line.sock"
    assert run(command, b"hello\nquit\nnever answered\n") == b"hello\nBye.\n"


@needs("curl")
def test_curl(folder: Path) -> None:
    """curl --unix-socket: `whoami` tells which process it is."""
    command = ["curl", "-sS", "--http0.9", "--unix-socket", f"{folder}/whoami.sock", "http://x/"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        output, _ = process.communicate(timeout=PATIENCE)
    assert json.loads(output) == {
        "peer": None,
        "local": f"{folder}/whoami.sock",
        "protocol": "whoami",
        "transport": "unix",
        "credentials": {"process": process.pid, "user": os.geteuid(), "group": os.getegid()},
    }


@needs("openssl")
def test_openssl(folder: Path, certificates: Certificates) -> None:
    """L1: s_client -unix verifies us, is echoed what it types, and ends cleanly."""
    command = [
        *["openssl", "s_client", "-unix", f"{folder}/tls.sock", "-brief", "-no_ign_eof"],
        *["-CAfile", certificates.ca, "-verify_return_error", "-verify_hostname", "localhost"],
    ]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        client.stdin.write(b"hello\n")
        client.stdin.flush()
        assert client.stdout.read(6) == b"hello\n"
        rest, errors = client.communicate(timeout=PATIENCE)
    assert (client.returncode, rest) == (0, b""), errors
    assert b"Verified peername: localhost\n" in errors


@pytest.mark.parametrize("version", ["1.2", "1.3"])
@pytest.mark.parametrize("exchange", [exchangeAtOnce, exchangeInTurns])
def test_python(
    folder: Path, certificates: Certificates, exchange: Callable[..., bytes], version: str
) -> None:
    """TLS over a UNIX socket: all comes back before our close_notify."""
    context = certificates.context(version)
    for size in SIZES:
        data = noise(size)
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE)
            client.connect(f"{folder}/tls.sock")
            assert exchange(client, context, data) == data
