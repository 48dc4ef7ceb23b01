"""`echod.client` over TLS and UNIX sockets: who is at the other end, and how it ends."""

from __future__ import annotations

import random
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest
import pytest_twisted
from msgspec import json
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater

from echod.client import ClientTLS, connect, connectUNIX
from echod.errors import ConfigurationError, ConnectFailed, StreamTruncated
from tests.certificates import Certificates
from tests.integration.daemon import PATIENCE
from tests.integration.loaded import LoadedDaemon as Daemon
from tests.integration.peers import reset

Test = TypeVar("Test", bound=Callable[..., Any])


def inReactor(test: Test) -> Test:
    """Run an asynchronous test in pytest-twisted's reactor."""
    return pytest_twisted.ensureDeferred(test)  # type: ignore[no-any-return]  # it has no types


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the daemon's UNIX socket is."""
    return tmp_path_factory.mktemp("client")


@pytest.fixture(scope="module")
def daemon(certificates: Certificates, folder: Path) -> Iterator[Daemon]:
    """Raw over TLS, and over UNIX sockets; whoami wants a client's certificate."""
    configuration = folder / "echod.toml"
    configuration.write_text(f"""
[[listener]]
protocol = "raw"
endpoint = "tls:0:interface=127.0.0.1"
[listener.tls]
cert = "{certificates.server}"
names = {{"other.example" = {{cert = "{certificates.other}"}}}}

[[listener]]
protocol = "whoami"
endpoint = "tcp:0"
tls = {{cert = "{certificates.server}", ca = "{certificates.ca}", client_auth = "require"}}

[[listener]]
protocol = "raw"
endpoint = "unix:{folder}/raw.sock"

[[listener]]
protocol = "raw"
endpoint = "unix:@{folder.name}-echod-client"
""")
    with Daemon("--config", str(configuration)) as running:
        yield running


@pytest.fixture(autouse=True)
def settled() -> Iterator[None]:
    """A connection that was given up has its descriptor until the next turn."""
    yield
    pytest_twisted.blockon(deferLater(reactor, 0))


@inReactor
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_nameOrAddress(daemon: Daemon, certificates: Certificates, host: str) -> None:
    """RFC 9525: the certificate is for the name, or for the address, that was asked for."""
    data = random.Random(1).randbytes(60_000)
    tls = ClientTLS(ca=certificates.ca, alpn=("h9", "echo"))
    async with await connect(host, daemon.ports["raw"], tls=tls) as stream:
        assert stream.tls is not None
        assert (stream.tls.version, stream.tls.alpn) == ("TLSv1.3", "echo")
        writing = Deferred.fromCoroutine(stream.write(data))
        assert await stream.readExactly(len(data)) == data
        await writing
        await stream.writeEOF()
        assert await stream.read() == b""


@inReactor
@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("other.invalid", "the certificate is not for other.invalid"),
        ("127.0.0.2", "the certificate is not for 127.0.0.2"),
        ("::2", "the certificate is not for ::2"),
    ],
)
async def test_wrongName(daemon: Daemon, certificates: Certificates, name: str, why: str) -> None:
    """A good certificate of somebody else's is refused, before a byte is written."""
    tls = ClientTLS(ca=certificates.ca, serverName=name)
    with pytest.raises(ConnectFailed, match=why):
        await connect("127.0.0.1", daemon.ports["raw"], tls=tls)


@inReactor
async def test_nameThatIsAskedFor(daemon: Daemon, certificates: Certificates) -> None:
    """SNI chooses the certificate, and the name is verified, whatever the address is."""
    tls = ClientTLS(ca=certificates.ca, serverName="other.example")
    async with await connect("127.0.0.1", daemon.ports["raw"], tls=tls) as stream:
        await stream.write(b"x")
        assert await stream.read() == b"x"


@inReactor
async def test_strangeAuthority(daemon: Daemon, certificates: Certificates) -> None:
    """Of the system's authorities none has issued it."""
    with pytest.raises(ConnectFailed, match="unable to get local issuer certificate"):
        await connect("127.0.0.1", daemon.ports["raw"], tls=ClientTLS())
    with pytest.raises(ConfigurationError, match="no certificate of an authority"):
        ClientTLS(ca=__file__)
    with pytest.raises(ConfigurationError, match="is no name of a server"):
        ClientTLS(serverName="x" * 64)


@inReactor
async def test_clientCertificate(daemon: Daemon, certificates: Certificates) -> None:
    """The server knows the subject and the names that it has verified; without one it refuses."""
    tls = ClientTLS(ca=certificates.ca, cert=certificates.client)
    async with await connect("localhost", daemon.ports["whoami"], tls=tls) as stream:
        facts = json.decode(await stream.readUntil(b"\n"))
    assert facts["tls"]["subject"].startswith("CN=alice")
    assert facts["tls"]["names"] == ["email:alice@example.org"]
    assert facts["tls"]["server_name"] == "localhost"

    # TLS 1.3 tells a client only after its own handshake: no clean end.
    async with await connect(
        "localhost", daemon.ports["whoami"], tls=ClientTLS(ca=certificates.ca)
    ) as stream:
        with pytest.raises(StreamTruncated, match="CERTIFICATE_REQUIRED"):
            await stream.readUntil(b"\n")


@contextmanager
def server(act: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server that does ``act`` with its one client; yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            client, _ = listening.accept()
            with client:
                act(client)

        thread = threading.Thread(target=serve)
        thread.start()
        yield int(listening.getsockname()[1])
        thread.join(20)
        assert not thread.is_alive()


@inReactor
async def test_truncated(certificates: Certificates) -> None:
    """L2: FIN without close_notify is no clean end, for a reader neither."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server)

    def act(client: socket.socket) -> None:
        secured = context.wrap_socket(client, server_side=True)
        secured.sendall(b"part")
        # The socket below: no close_notify.
        secured.shutdown(socket.SHUT_WR)
        secured.close()

    with server(act) as port:
        stream = await connect("localhost", port, tls=ClientTLS(ca=certificates.ca))
        assert await stream.read() == b"part"
        with pytest.raises(StreamTruncated):
            await stream.read()
        stream.abort()
        await stream.waitClosed()


@inReactor
async def test_silentServer(certificates: Certificates) -> None:
    """L3: a server that never answers costs the timeout, and no descriptor."""

    def act(client: socket.socket) -> None:
        client.recv(1_000_000)
        with suppress(ConnectionResetError):
            assert client.recv(1) == b""

    with server(act) as port:
        with pytest.raises(ConnectFailed, match="cannot connect to localhost"):
            await connect("localhost", port, tls=ClientTLS(ca=certificates.ca), timeout=0.3)
        await deferLater(reactor, 0)


@inReactor
async def test_noTLS(certificates: Certificates) -> None:
    """A server that speaks something else: the reason is OpenSSL's."""

    def act(client: socket.socket) -> None:
        client.sendall(b"220 welcome\r\n")
        with suppress(ConnectionResetError):
            client.recv(1_000_000)

    with server(act) as port:
        with pytest.raises(ConnectFailed, match="WRONG_VERSION_NUMBER"):
            await connect("localhost", port, tls=ClientTLS(ca=certificates.ca))
        await deferLater(reactor, 0)


@inReactor
async def test_cancelled(certificates: Certificates) -> None:
    """Cancelled within the handshake: the connection is gone too."""
    gone = threading.Event()

    def act(client: socket.socket) -> None:
        client.recv(1_000_000)
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        gone.set()

    with server(act) as port:
        connecting = Deferred.fromCoroutine(
            connect("localhost", port, tls=ClientTLS(ca=certificates.ca))
        )
        await deferLater(reactor, 0.3)
        connecting.cancel()
        with pytest.raises(CancelledError):
            await connecting
        await deferLater(reactor, 0)
        assert gone.wait(10)


@inReactor
async def test_cancelledBeforeThat() -> None:
    """Cancelled while nobody has answered yet."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        address = full.getsockname()
        with socket.create_connection(address):
            # The queue is full: a further SYN is dropped.
            connecting = Deferred.fromCoroutine(connect(*address))
            await deferLater(reactor, 0.1)
            assert not connecting.called
            connecting.cancel()
            with pytest.raises(CancelledError):
                await connecting


@inReactor
async def test_cancelledAtOnce() -> None:
    """Cancelled while the name is looked up."""
    connecting = Deferred.fromCoroutine(connect("localhost", 9))
    connecting.cancel()
    with pytest.raises(CancelledError):
        await connecting


@inReactor
async def test_unix(daemon: Daemon, folder: Path) -> None:
    """A path and an abstract name; half-close and the peer's credentials as ever."""
    data = bytes(60_000)
    for path in (str(folder / "raw.sock"), f"@{folder.name}-echod-client"):
        async with await connectUNIX(path) as stream:
            writing = Deferred.fromCoroutine(stream.write(data))
            assert await stream.readExactly(len(data)) == data
            await writing
            await stream.writeEOF()
            assert await stream.read() == b""


@inReactor
async def test_nobodyAtAPath(tmp_path: Path) -> None:
    """One error, which names the path."""
    with pytest.raises(ConnectFailed, match=rf"cannot connect to {tmp_path}/nothing: "):
        await connectUNIX(str(tmp_path / "nothing"))


@inReactor
@pytest.mark.parametrize("secured", [True, False])
async def test_resetAtOnce(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch, secured: bool
) -> None:
    """A reset as soon as the connection is made is a failure to connect, and no traceback."""
    listening = socket.create_server(("127.0.0.1", 0))

    class Reset(socket.socket):
        """Connected as far as connect(2) says, and reset before anybody looks at it again."""

        def getpeername(self) -> Any:
            accepted, _ = listening.accept()
            reset(accepted)
            arrival = select.poll()
            arrival.register(self, 0)
            assert arrival.poll(PATIENCE * 1000)
            return super().getpeername()

    tls = ClientTLS(ca=certificates.ca) if secured else None
    monkeypatch.setattr(socket, "socket", Reset)
    with listening, pytest.raises(ConnectFailed, match="cannot connect to localhost"):
        await connect("localhost", listening.getsockname()[1], tls=tls)
