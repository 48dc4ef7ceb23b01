"""Clients that a daemon must bear, and what they must be answered."""

from __future__ import annotations

import contextlib
import json
import random
import select
import shutil
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import pytest

from echod.connection.states import ENDS, Reason
from tests.integration.daemon import PATIENCE, Daemon, idle, waitFor
from tests.integration.loaded import LoadedDaemon

#: The small socket buffers; the kernel makes about 8 KiB of it.
SMALL = 4096

#: Words in a daemon's log that no client may cause.
HARM = ("Traceback", "Unhandled", "#critical", "#error", "raised")
#: The same, of a client that is not refused either.
FAULTS = (*HARM, "#warn")


def needs(program: str, package: str = "") -> pytest.MarkDecorator:
    """Skip, saying why, where ``program`` is not installed."""
    return pytest.mark.skipif(
        shutil.which(program) is None,
        reason=f"{program} is not installed (apt-get install {package or program})",
    )


# -- Daemons -----------------------------------------------------------------------------------


def configured(folder: Path, *listeners: Mapping[str, Any], **top: Any) -> str:
    """
    ``--config`` and a new file in ``folder``.

    :param listeners: the tables ``[[listener]]``, within them dicts for tables.
    :param top: the keys before them.
    """
    lines = [f"{key} = {_toml(value)}" for key, value in top.items()]
    for listener in listeners:
        lines.append("[[listener]]")
        lines += [f"{key} = {_toml(value)}" for key, value in listener.items()]
    path = folder / "echod.toml"
    path.write_text("\n".join(lines) + "\n")
    return f"--config={path}"


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        pairs = [f"{json.dumps(key)} = {_toml(one)}" for key, one in value.items()]
        return f"{{{', '.join(pairs)}}}"
    return json.dumps(value)


@contextlib.contextmanager
def serving(*arguments: str) -> Iterator[Daemon]:
    """A daemon that must live through the block without an error in its log."""
    with LoadedDaemon(*arguments) as daemon:
        yield daemon
        assertUnharmed(daemon)


def assertUnharmed(daemon: Daemon, faults: Sequence[str] = FAULTS) -> None:
    """It runs, answers, and has logged nothing that is wrong."""
    assert daemon.process.poll() is None
    for listener in daemon.counters().values():
        for reason, ends in listener.get("ends", {}).items():
            assert {*ends} <= {*ENDS[Reason(reason)]}, "metrics have no series for this"
    # What is said before is of the configuration.
    started = next(n for n, line in enumerate(daemon.lines) if "#info] listening " in line)
    # A machine with other work makes it slow; no client does that here, and none is blamed.
    said = [line for line in daemon.lines[started:] if "#warn] slow " not in line]
    assert [line for line in said if any(word in line for word in faults)] == []


# -- Streams and their answers ---------------------------------------------------------------


def noise(size: int, seed: int = 0) -> bytes:
    """The same ``size`` random bytes each time."""
    return random.Random(seed).randbytes(size)


def lines(size: int, seed: int = 0, longest: int = 300) -> bytes:
    """Just ``size`` bytes of lines, empty and CRLF ones too; the last one is likely cut."""
    source = random.Random(seed)
    pieces: list[bytes] = []
    made = 0
    while made < size:
        text = source.randbytes(source.randrange(longest)).replace(b"\n", b"\0")
        pieces.append(text + source.choice((b"\n", b"\r\n")))
        made += len(pieces[-1])
    return b"".join(pieces)[:size]


def frame(body: bytes) -> bytes:
    """One message with its length (RFC 1035 section 4.2.2)."""
    return struct.pack(">H", len(body)) + body


def frames(size: int, seed: int = 0, longest: int = 600) -> bytes:
    """Just ``size`` bytes of messages, empty ones too; the last one is likely cut."""
    source = random.Random(seed)
    pieces: list[bytes] = []
    made = 0
    while made < size:
        pieces.append(frame(source.randbytes(source.choice((0, 1, source.randrange(longest))))))
        made += len(pieces[-1])
    return b"".join(pieces)[:size]


def wholeLines(stream: bytes) -> bytes:
    """What ``line`` answers: up to the last line's end."""
    return stream[: stream.rfind(b"\n") + 1]


def wholeFrames(stream: bytes) -> bytes:
    """What ``dns`` answers: up to the last whole message's end."""
    end = 0
    while end + 2 <= len(stream):
        following = end + 2 + int.from_bytes(stream[end : end + 2], "big")
        if following > len(stream):
            break
        end = following
    return stream[:end]


def whole(stream: bytes) -> bytes:
    """What ``raw`` answers."""
    return stream


#: For each protocol: how to make a stream, and what comes back of it.
STREAMS: dict[str, tuple[Callable[[int], bytes], Callable[[bytes], bytes]]] = {
    "raw": (noise, whole),
    "line": (lines, wholeLines),
    "dns": (frames, wholeFrames),
}


# -- Clients -----------------------------------------------------------------------------------


def connect(
    daemon: Daemon,
    protocol: str = "raw",
    *,
    buffers: int | None = None,
    receiveBuffer: int | None = None,
) -> socket.socket:
    """
    A blocking client with a deadline, and without Nagle's delay.

    :param buffers: its send and receive buffers in bytes, set before it connects.
    :param receiveBuffer: its receive buffer alone.
    """
    client = socket.socket()
    try:
        if buffers is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffers)
        if (receiveBuffer or buffers) is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receiveBuffer or buffers or 0)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.settimeout(PATIENCE)
        client.connect(("127.0.0.1", daemon.ports[protocol]))
    except BaseException:
        client.close()
        raise
    return client


def receiveExactly(client: socket.socket, size: int) -> bytes:
    """Read ``size`` bytes, or what there is before EOF."""
    pieces = []
    while size and (piece := client.recv(min(size, 1 << 16))):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def ping(client: socket.socket, data: bytes = b"ping\n") -> None:
    """Send, and have it back."""
    client.sendall(data)
    assert receiveExactly(client, len(data)) == data


def pingAll(client: socket.socket, data: bytes) -> bytes:
    """Send a piece, have it back, and so on; what came back."""
    pieces = []
    for at in range(0, len(data), 1 << 16):
        piece = data[at : at + (1 << 16)]
        client.sendall(piece)
        pieces.append(receiveExactly(client, len(piece)))
    return b"".join(pieces)


def reset(client: socket.socket) -> None:
    """Close with RST."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def finSeen(client: socket.socket) -> bool:
    """Whether the daemon's FIN has arrived, without reading what came before it."""
    poll = select.poll()
    poll.register(client, select.POLLRDHUP)
    return any(events & select.POLLRDHUP for _, events in poll.poll(0))


def sentAway(client: socket.socket, data: bytes) -> threading.Thread:
    """Send from a thread of its own; join it."""
    sender = threading.Thread(target=client.sendall, args=(data,))
    sender.start()
    return sender


def wrongOfFifty(exchanged: Callable[[int, bytes], bytes]) -> list[int]:
    """
    Numbers of those of fifty clients at a time that do not get back what they send.

    :param exchanged: is told a client's number and its bytes, and returns what it got.
    """
    wrong: list[int] = []

    def talk(number: int) -> None:
        data = noise(50_000 + number, seed=number)
        if exchanged(number, data) != data:
            wrong.append(number)

    clients = [threading.Thread(target=talk, args=(number,)) for number in range(50)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    return wrong


class Sender:
    """
    A client that sends from ``stream`` and does not read.

    :ivar sent: how many bytes the kernel took.
    """

    def __init__(self, client: socket.socket, stream: bytes) -> None:
        self.client = client
        self.stream = stream
        self.sent = 0

    def sendSome(self) -> None:
        """Send what the kernel takes; there must be more to send than it takes."""
        with contextlib.suppress(BlockingIOError):
            piece = memoryview(self.stream)[self.sent : self.sent + 65536]
            self.sent += self.client.send(piece, socket.MSG_DONTWAIT)
        assert self.sent < len(self.stream), f"all {self.sent} bytes were taken: nobody stops it"


class Sending(Protocol):
    """What `stall` needs of one."""

    @property
    def client(self) -> socket.socket:
        """Its end."""

    def sendSome(self) -> None:
        """Send what is taken."""


def stall(senders: Sequence[Sending], quiet: float = 0.5) -> None:
    """Have all send until no kernel has taken a byte for ``quiet`` seconds."""
    byNumber = {sender.client.fileno(): sender for sender in senders}
    poll = select.poll()
    for number in byNumber:
        poll.register(number, select.POLLOUT)
    while ready := poll.poll(quiet * 1000):
        for number, _ in ready:
            byNumber[number].sendSome()


# -- Clients that do TLS -----------------------------------------------------------------------


def exchangeInTurns(client: socket.socket, context: ssl.SSLContext, data: bytes) -> bytes:
    """
    Send a piece, have it back, and so on; then close_notify, and wait for the server's and FIN.

    With Python's blocking sockets, as most people use them.  The socket is closed.

    :raises ssl.SSLError: there was more, or no close_notify.
    """
    with context.wrap_socket(client, server_hostname="localhost") as secured:
        got = pingAll(secured, data)
        rest = secured.unwrap()
        assert rest.recv(1) == b""
        return got


def exchangeAtOnce(client: socket.socket, context: ssl.SSLContext, data: bytes) -> bytes:
    """
    Send all and close_notify in one go, while reading to the server's close_notify and FIN.

    The socket is closed.

    :raises ssl.SSLError: FIN came without close_notify.
    """
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with client:
        while True:
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                client.sendall(outgoing.read())
                incoming.write(client.recv(1 << 16))
            else:
                break
        if data:
            tls.write(data)
        with contextlib.suppress(ssl.SSLWantReadError):
            # It says that the server's has not come.
            tls.unwrap()
        sender = sentAway(client, outgoing.read())
        try:
            return _receiveAll(client, tls, incoming)
        finally:
            sender.join()


def _receiveAll(client: socket.socket, tls: ssl.SSLObject, incoming: ssl.MemoryBIO) -> bytes:
    pieces: list[bytes] = []
    while True:
        try:
            piece = tls.read(1 << 16)
        except ssl.SSLWantReadError:
            if arrived := client.recv(1 << 16):
                incoming.write(arrived)
            else:
                incoming.write_eof()
        except ssl.SSLZeroReturnError:
            break
        else:
            if not piece:
                break
            pieces.append(piece)
    assert client.recv(1) == b""
    return b"".join(pieces)


# -- What the daemon shows ------------------------------------------------------------------


def waitForDescriptors(daemon: Daemon, baseline: int) -> None:
    """Every connection is gone, descriptor and all."""
    waitFor(lambda: daemon.descriptors() == baseline, f"{baseline} descriptors again")


def waitForCounters(daemon: Daemon, protocol: str = "raw", **wanted: Any) -> dict[str, Any]:
    """The protocol's counters, once they show what is ``wanted``."""

    def found() -> dict[str, Any] | None:
        counters: dict[str, Any] = daemon.counters()[protocol]
        if all(counters[name] == value for name, value in wanted.items()):
            return counters
        idle(0.02, "each look costs the daemon a line of its log")
        return None

    try:
        return dict(waitFor(found, f"{protocol} counters {wanted}"))
    except AssertionError as error:
        raise AssertionError(f"{error}: {daemon.counters()[protocol]}") from error
