"""`EchodService.reload` where something is in the way: what was served goes on being served."""

from __future__ import annotations

import gc
import os
import socket
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.logger import capturedLogs, formatEvent

from echod.errors import ListenError
from tests.unit.outer import waitUntil
from tests.unit.reloading import Reloading, udpPort


@pytest.fixture
def served() -> Iterator[Reloading]:
    """Stopped at the end."""
    served = Reloading()
    yield served
    served.stop()


def test_fileThatIsGone(served: Reloading, tmp_path: Path) -> None:
    """O1: the mode of a socket's file that somebody has removed: a line, and all else goes on."""
    path = tmp_path / "s"
    served.start(("raw", "tcp:0", {}), ("raw", f"unix:{path}", {}))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        assert served.echo(client, b"x") == b"x"
        path.unlink()
        with capturedLogs() as events:
            for seconds in (9.0, 8.0):
                limits = {"idle_timeout": seconds}
                served.reload(("raw", "tcp:0", limits), ("raw", f"unix:{path}:mode=600", limits))
        assert served.echo(client, b"y") == b"y"
        client.shutdown(socket.SHUT_WR)
        for _ in range(5):
            served.loop.turn()
    why = f"unix {path} keeps its mode: No such file or directory"
    assert [formatEvent(event) for event in events].count(why) == 2


def test_fileThatIsSomebodyElses(served: Reloading, tmp_path: Path) -> None:
    """Issue 5, 4: what is at the path now is not ours to change, nor what a link leads to."""
    path, secret = tmp_path / "s", tmp_path / "secret"
    secret.touch(0o600)
    served.start(("raw", f"unix:{path}:mode=666", {}))
    path.unlink()
    for replace in (lambda: path.symlink_to(secret), lambda: os.link(secret, path)):
        replace()
        served.reload(("raw", f"unix:{path}:mode=666", {"idle_timeout": 9.0}))
        assert secret.stat().st_mode & 0o777 == 0o600
        served.reload(("raw", f"unix:{path}:mode=666", {}))
        path.unlink()


def test_modeOfTheFile(served: Reloading, tmp_path: Path) -> None:
    """It is ours, and changed."""
    path = tmp_path / "s"
    served.start(("raw", f"unix:{path}:mode=666", {}))
    served.reload(("raw", f"unix:{path}:mode=600", {}))
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("before", "after"),
    [(["127.0.0.1", "127.0.0.2"], ["127.0.0.1"]), (["127.0.0.1"], ["127.0.0.2"])],
    ids=["one of two goes", "its address changes"],
)
def test_ownPorts(served: Reloading, before: list[str], after: list[str]) -> None:
    """E6: a port stays our own as long as one listener has it, and no longer."""
    port = udpPort()

    def ask() -> bytes:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.bind(("127.0.0.3", port))
            client.connect((after[0], served.service.listeners[-1].getHost().port))
            return served.echo(client, b"x")

    served.start(*(("udp", f"udp:{port}:interface={host}", {}) for host in before))
    served.reload(*(("udp", f"udp:{port}:interface={host}", {}) for host in after))
    assert ask() == b""
    limits = {"allow": ["0.0.0.0/0"]}
    served.reload(*(("udp", f"udp:{port}:interface={host}", limits) for host in after))
    assert ask() == b""
    served.reload(("udp", f"udp:0:interface={after[0]}", {}))
    assert ask() == b"x"


def test_nothingIsLeftOfOneThatFails(served: Reloading) -> None:
    """A reload that is refused leaves nothing behind, however often."""
    port, other = udpPort(), udpPort()
    served.start(("udp", f"udp:{port}", {}))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        wanted: list[tuple[str, str, dict[str, Any]]] = [
            ("raw", "tcp:0", {}),
            ("udp", f"udp:{other}", {}),
            ("raw", f"tcp:{taken.getsockname()[1]}", {}),
        ]
        swept = len(served.service._sweep._shardOf)
        for _ in range(3):
            with pytest.raises(ListenError):
                served.reload(("udp", f"udp:{port}", {}), *wanted)
        assert len(served.service._sweep._shardOf) == swept
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.bind(("127.0.0.1", other))
        client.connect(("127.0.0.1", port))
        assert served.echo(client, b"x") == b"x"


#: Reloads that a connection outlives: more than Python's stack is deep.
MANY = 1100


@pytest.mark.parametrize("drain", [False, True], ids=["ends before", "ends in the drain"])
@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_outlivesManyReloads(served: Reloading, tmp_path: Path, kind: str, drain: bool) -> None:
    """A connection's end is quiet, and is the end of the drain, however many listeners came."""
    endpoint = "tcp:0" if kind == "tcp" else f"unix:{tmp_path}/s"

    def changed(number: int) -> list[tuple[str, str, dict[str, Any]]]:
        limits = {"idle_timeout": 1000.0 + number}
        return [("raw", endpoint, limits), ("udp", "udp:0", {"datagrams_per_second": 1 + number})]

    served.start(*changed(0))
    host = served.service.listeners[0].getHost()
    address = (host.host, host.port) if kind == "tcp" else f"{tmp_path}/s"
    with (
        socket.socket(socket.AF_INET if kind == "tcp" else socket.AF_UNIX) as client,
        capturedLogs() as events,
    ):
        client.connect(address)
        assert served.echo(client, b"x") == b"x"
        first, before = weakref.ref(served.service.listeners[0]), served.kept()
        for number in range(1, MANY + 1):
            served.reload(*changed(number))
        gc.collect()
        assert served.kept() == {**before, "listeners": before["listeners"] + 1}
        assert served.service.connectionCount() == 1
        assert first() is not None
        if drain:
            ended = served.beginStop()
        client.shutdown(socket.SHUT_WR)
        waitUntil(served.loop.turn, lambda: not served.service.connectionCount())
        assert not drain or ended
        # Once their last connection is gone nobody needs them.
        gc.collect()
        assert first() is None
    assert [event for event in events if "log_failure" in event] == []
