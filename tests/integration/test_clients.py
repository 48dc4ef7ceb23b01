"""Clients that people really use: OpenBSD's netcat, Nmap's Ncat, socat, dig."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.daemon import PATIENCE
from tests.integration.loaded import LoadedDaemon as Daemon
from tests.integration.peers import (
    STREAMS,
    assertUnharmed,
    needs,
    noise,
    serving,
    waitForCounters,
)

#: Each client's command line; each sends its input, then FIN, and prints until EOF.
COMMANDS = {
    "nc": ["nc", "-N", "127.0.0.1", "{port}"],
    "ncat": ["ncat", "127.0.0.1", "{port}"],
    "socat": ["socat", "-t", "30", "-", "TCP:127.0.0.1:{port}"],
}

#: And where each comes from.
PACKAGES = {"nc": "netcat-openbsd", "ncat": "ncat", "socat": "socat"}

clients = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=needs(name, PACKAGES[name])) for name in COMMANDS]
)


def command(name: str, port: int) -> list[str]:
    """The command line of a client."""
    return [word.format(port=port) for word in COMMANDS[name]]


def run(name: str, port: int, data: bytes) -> bytes:
    """Give ``data`` to a client that sends it to ``port``; what it prints."""
    done = subprocess.run(
        command(name, port), input=data, capture_output=True, timeout=PATIENCE, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    """The plain protocols."""
    with Daemon("--port", "0", "--line-port", "0", "--dns-port", "0") as daemon:
        yield daemon
        assertUnharmed(daemon)
        assert daemon.stop() == 0


@clients
@pytest.mark.parametrize("protocol", ["raw", "line"])
def test_text(daemon: Daemon, name: str, protocol: str) -> None:
    """E1: `printf … | client`, 20 times: every time all of it comes back."""
    text = "hello\nGrüße\r\n\nbye\n".encode()
    got = [run(name, daemon.ports[protocol], text) for _ in range(20)]
    assert got == [text] * 20


@clients
@pytest.mark.parametrize("protocol", ["raw", "line"])
def test_nothing(daemon: Daemon, name: str, protocol: str) -> None:
    """C6, E1: `client < /dev/null` ends at once, with no byte and no error in the log."""
    assert run(name, daemon.ports[protocol], b"") == b""


@clients
@pytest.mark.parametrize("protocol", ["raw", "line"])
def test_threeMegabytes(daemon: Daemon, name: str, protocol: str, tmp_path: Path) -> None:
    """E1: `client < 3MB > copy`: the files do not differ."""
    _, answer = STREAMS[protocol]
    # Random bytes have a newline each 256 bytes or so: lines, as far as anyone can tell.
    data = noise(3_000_000)
    sent, copy = tmp_path / "sent", tmp_path / "copy"
    sent.write_bytes(data)
    with sent.open("rb") as source, copy.open("wb") as target:
        done = subprocess.run(
            command(name, daemon.ports[protocol]),
            stdin=source,
            stdout=target,
            timeout=PATIENCE,
            check=False,
        )
    assert done.returncode == 0
    assert copy.read_bytes() == answer(data)
    assert len(answer(data)) > 2_990_000


@needs("nc", "netcat-openbsd")
def test_healthCheck(daemon: Daemon) -> None:
    """C6: `nc -z` connects and closes: accepted, ended by EOF, no error in the log."""
    before = waitForCounters(daemon, "raw", open=0)
    for _ in range(5):
        subprocess.run(
            ["nc", "-z", "127.0.0.1", str(daemon.ports["raw"])], timeout=PATIENCE, check=True
        )
    after = waitForCounters(daemon, "raw", open=0, accepted=before["accepted"] + 5)
    assert after["resets"] == before["resets"]
    assert after["closed"]["eof"] == before["closed"].get("eof", 0) + 5
    assertUnharmed(daemon)


def dig(port: int, *words: str) -> str:
    """What dig prints, its errors too."""
    done = subprocess.run(
        # Without -r a ~/.digrc would have its say.
        ["dig", "-r", "+tcp", "+tries=1", "+time=10", "-p", str(port), "@127.0.0.1", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@needs("dig", "dnsutils")
def test_dig(daemon: Daemon) -> None:
    """
    F1: dig takes the echo of its own question for an answer, with three remarks.

    `dig +tcp -p PORT @127.0.0.1 example.com` (9.18) finds its ID again, so "Got answer" and
    exit status 0.  First of all it says ";; Warning: query response not set", because the QR
    bit is still 0; the flags are "rd ad", without "qr"; ";; WARNING: recursion requested but
    not available", because RD is there and RA is not; and its own cookie is "(echoed)".
    0 answers, the question as it was asked.
    """
    before = waitForCounters(daemon, "dns", open=0)
    output = dig(daemon.ports["dns"], "example.com")
    assert ";; Warning: query response not set" in output
    assert ";; Got answer:" in output
    assert "opcode: QUERY, status: NOERROR" in output
    assert ";; flags: rd ad; QUERY: 1, ANSWER: 0, AUTHORITY: 0, ADDITIONAL: 1" in output
    assert ";; WARNING: recursion requested but not available" in output
    assert "(echoed)" in output
    assert ";example.com.\t\t\tIN\tA" in output
    assert "(TCP)" in output
    assert "mismatch" not in output
    after = waitForCounters(daemon, "dns", open=0)
    assert after["messages"] - before["messages"] == 1
    assert after["bytes_out"] == after["bytes_in"]


@needs("dig", "dnsutils")
def test_digOverUDP() -> None:
    """RFC 1035 4.2.1: over UDP a message has no length before it; dig is told the same."""
    with Daemon("--listen", "dns=udp:0") as daemon:
        output = dig(daemon.ports["dns/udp"], "+notcp", "example.com")
        assert ";; Warning: query response not set" in output
        assert "opcode: QUERY, status: NOERROR" in output
        assert "(UDP)" in output
        assert daemon.counters()["dns"]["datagrams_out"] == 1


@needs("dig", "dnsutils")
def test_digKeepsOpen(daemon: Daemon) -> None:
    """F5: `dig +keepopen` asks three questions on one connection and has three answers."""
    before = waitForCounters(daemon, "dns", open=0)
    output = dig(daemon.ports["dns"], "+keepopen", "a.example", "b.example", "c.example")
    assert output.count(";; Got answer:") == 3
    assert output.count(";; Warning: query response not set") == 3
    after = waitForCounters(daemon, "dns", open=0)
    assert after["messages"] - before["messages"] == 3
    assert after["accepted"] - before["accepted"] == 1


# -- Sessions, as in a README ----------------------------------------------------------------


@clients
def test_lineSession(name: str) -> None:
    """
    A session with prefix and quit, typed: each line is answered as it is sent.

    `quit` is answered `Bye.`, then EOF: the client prints all of it and ends.
    """
    with (
        serving("--line-port", "0", "-o", "line.prefix=Echo: ", "-o", "line.quit=quit") as daemon,
        subprocess.Popen(
            command(name, daemon.ports["line"]), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as client,
    ):
        assert client.stdin is not None
        assert client.stdout is not None
        for word in (b"hello", b"", b"is anybody there?"):
            client.stdin.write(word + b"\n")
            client.stdin.flush()
            assert client.stdout.readline() == b"Echo: " + word + b"\n"
        client.stdin.write(b"quit\nnever read\n")
        client.stdin.flush()
        assert client.stdout.readline() == b"Bye.\n"
        client.stdin.close()
        assert client.stdout.read() == b""
        assert client.wait(PATIENCE) == 0
        counters = waitForCounters(daemon, "line", open=0)
        assert counters["closed"] == {"quit": 1}
        assert counters["resets"] == counters["aborted"] == 0


@clients
def test_piped(name: str) -> None:
    """`printf … | client`: the prefix stands before each line; CRLF is answered with CRLF."""
    with serving("--line-port", "0", "-o", "line.prefix=Echo: ", "-o", "line.quit=quit") as daemon:
        port = daemon.ports["line"]
        assert run(name, port, b"one\ntwo\n") == b"Echo: one\nEcho: two\n"
        assert run(name, port, b"one\r\nquit\r\n") == b"Echo: one\r\nBye.\r\n"
        assert run(name, port, b"quit\n") == b"Bye.\n"


@clients
def test_rawQuit(name: str) -> None:
    """Raw with quit: echoed up to and including the word, nothing after, then EOF."""
    with serving("--port", "0", "-o", "raw.quit=.\n") as daemon:
        got = run(name, daemon.ports["raw"], b"some text\n.\nnever echoed\n")
        assert got == b"some text\n.\n"
        counters = waitForCounters(daemon, "raw", open=0)
        assert counters["closed"] == {"quit": 1}
        assert counters["bytes_out"] == 12


@needs("nc", "netcat-openbsd")
def test_quitAndAnIdleClient() -> None:
    """
    C2: after quit, nc with its input still open prints all, and is freed by the linger deadline.

    OpenBSD's nc does not answer our FIN with its own while its input may bring more; so the
    daemon lingers --linger-timeout, then aborts, at which nc ends.
    """
    with (
        serving("--port", "0", "-o", "raw.quit=quit", "--linger-timeout", "1") as daemon,
        subprocess.Popen(
            ["nc", "127.0.0.1", str(daemon.ports["raw"])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as client,
    ):
        assert client.stdin is not None
        assert client.stdout is not None
        client.stdin.write(b"quit")
        client.stdin.flush()
        assert client.stdout.read() == b"quit"
        counters = waitForCounters(daemon, "raw", closed={"quit": 1}, open=0)
        assert counters["aborted"] == 1
        assert counters["resets"] == counters["cut"] == 0
