"""`echod.transports.path_lock` and the ports that use it: one at a path, at whatever moment."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.protocol import Factory

from echod.config.endpoints import UNIXEndpoint
from echod.errors import ListenError
from echod.testing.stepped_loop import Loop
from echod.transports.path_lock import lockedPath
from echod.transports.unix import UNIXListeningPort


def lockOf(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


def portAt(path: Path) -> UNIXListeningPort:
    return UNIXListeningPort(UNIXEndpoint(str(path)), Factory(), 5, Loop())


def before(step: str, act: Callable[[], None]) -> type[socket.socket]:
    """Sockets that do something else before one step of theirs."""

    def stretched(self: Any, *arguments: Any) -> Any:
        act()
        return getattr(super(kind, self), step)(*arguments)

    kind: Any = type("Stretched", (socket.socket,), {step: stretched})
    return kind  # type: ignore[no-any-return]  # made above


def test_oneAtATime(tmp_path: Path) -> None:
    """Who comes meanwhile is refused, in a line that says how to find the other."""
    path = tmp_path / "s"
    for _ in range(2):
        with lockedPath(str(path)):
            assert lockOf(path).exists()
            with pytest.raises(
                ListenError, match=f"another is about to; who: fuser {lockOf(path)}"
            ):
                lockedPath(str(path)).__enter__()
            with lockedPath(f"{path}2"):
                """Another path is another matter."""
        assert list(tmp_path.iterdir()) == []


def test_leftByTheDead(tmp_path: Path) -> None:
    """A file whose process was killed is taken over."""
    path = tmp_path / "s"
    lockOf(path).touch(0o600)
    with lockedPath(str(path)):
        pass
    assert list(tmp_path.iterdir()) == []


def test_removedMeanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that its last user removed between our opening and our locking it is no lock."""
    path = tmp_path / "s"
    real = fcntl.flock
    remove = [lockOf(path).unlink]

    def flock(descriptor: int, operation: int) -> None:
        if remove:
            remove.pop()()
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with lockedPath(str(path)):
        assert lockOf(path).exists(), "it would exclude nobody"
        with pytest.raises(ListenError):
            lockedPath(str(path)).__enter__()


def test_cannotBeUsed(tmp_path: Path) -> None:
    """What is in the way of the lock is named; what a link leads to is not touched."""
    path = tmp_path / "s"
    target = tmp_path / "target"
    lockOf(path).symlink_to(target)
    with pytest.raises(ListenError, match=f"{lockOf(path)}: Too many levels .*; remove it"):
        lockedPath(str(path)).__enter__()
    assert not target.exists()
    with pytest.raises(FileNotFoundError):
        lockedPath(str(tmp_path / "none" / "s")).__enter__()


@pytest.mark.parametrize("stale", [True, False])
@pytest.mark.parametrize("step", ["bind", "listen"])
def test_whateverTheMoment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, stale: bool
) -> None:
    """
    Two start at once: the one serves, the other is refused, also where the first has made its file
    and does not listen yet, which looks like the socket of one that died.
    """
    path = tmp_path / "s"
    if stale:
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
    first, second = portAt(path), portAt(path)
    refusals: list[str] = []

    def meanwhile() -> None:
        monkeypatch.undo()
        with pytest.raises(ListenError) as raised:
            second.startListening()
        refusals.append(str(raised.value))

    monkeypatch.setattr(socket, "socket", before(step, meanwhile))
    first.startListening()
    assert len(refusals) == 1
    assert not second.connected
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        with pytest.raises(ListenError, match="somebody does already"):
            second.startListening()
        assert list(tmp_path.iterdir()) == [path]
    first.close()
    assert list(tmp_path.iterdir()) == []


def test_goneBetweenTwoLooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stale file that its owner removes as we look is no obstacle."""
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    monkeypatch.setattr(socket, "socket", before("connect_ex", path.unlink))
    port = portAt(path)
    port.startListening()
    assert os.path.lexists(path)
    port.close()
