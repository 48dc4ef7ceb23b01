"""`echod.daemon.log_files`: whole lines go to a descriptor, whoever moves or truncates its file."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from echod.daemon.log_files import NamedFile, StandardStream, writeAll


@pytest.fixture
def file(tmp_path: Path) -> Iterator[NamedFile]:
    """One for the path ``log``, closed at the end: nothing else does before the process ends."""
    file = NamedFile(str(tmp_path / "log"))
    yield file
    os.close(file._descriptor)


def short(monkeypatch: pytest.MonkeyPatch, *results: int) -> list[bytes]:
    """Have write(2) write so much at a time, or fail with ENOSPC for a negative number."""
    steps = iter(results)
    written: list[bytes] = []

    def write(descriptor: int, data: Any) -> int:
        step = next(steps, len(data))
        if step < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(bytes(data[:step]))
        return min(step, len(data))

    monkeypatch.setattr(os, "write", write)
    return written


@pytest.fixture
def old(tmp_path: Path) -> None:
    """A line is in the file already."""
    (tmp_path / "log").write_bytes(b"old\n")


def test_appends(tmp_path: Path, old: None, file: NamedFile) -> None:
    """What a file holds already stays."""
    assert file.write([b"new\n", b"newer\n"]) == 2
    assert (tmp_path / "log").read_bytes() == b"old\nnew\nnewer\n"


def test_truncated(tmp_path: Path, file: NamedFile) -> None:
    """Whoever truncates it (logrotate's copytruncate) finds the next line at byte 0."""
    file.write([b"a line\n"])
    os.truncate(tmp_path / "log", 0)
    file.write([b"the next\n"])
    assert (tmp_path / "log").read_bytes() == b"the next\n"


@pytest.mark.parametrize("created", [False, True])
def test_moved(tmp_path: Path, file: NamedFile, created: bool) -> None:
    """Whoever moves it finds the next line in a new one, with the mode of the old one."""
    path = tmp_path / "log"
    file.write([b"a line\n"])
    path.chmod(0o640)
    path.rename(tmp_path / "log.1")
    if created:
        path.touch()
        path.chmod(0o604)
    before = os.umask(0o077)
    try:
        file.reopen()
    finally:
        os.umask(before)
    file.write([b"the next\n"])
    assert (tmp_path / "log.1").read_bytes() == b"a line\n"
    assert path.read_bytes() == b"the next\n"
    assert path.stat().st_mode & 0o777 == (0o604 if created else 0o640)


def test_cannotBeHad(tmp_path: Path, file: NamedFile) -> None:
    """Where there is none to be had, the old one goes on."""
    tmp_path.joinpath("log").rename(tmp_path / "log.1")
    tmp_path.joinpath("log").mkdir()
    with pytest.raises(IsADirectoryError):
        file.reopen()
    file.write([b"a line\n"])
    assert (tmp_path / "log.1").read_bytes() == b"a line\n"


def test_diskFull(monkeypatch: pytest.MonkeyPatch, file: NamedFile) -> None:
    """A line that went out in part is no whole one, and the next begins on a line of its own."""
    with monkeypatch.context() as patch:
        written = short(patch, 6, -1)
        assert file.write([b"one\n", b"two\n", b"three\n"]) == 1
        assert written == [b"one\ntw"]
        written = short(patch, -1)
        with pytest.raises(OSError, match="No space"):
            file.write([b"three\n"])
        written = short(patch)
        assert file.write([b"four\n"]) == file.write([b"five\n"]) == 1
        assert written == [b"\nfour\n", b"five\n"]


def test_wholeLineThenFull(monkeypatch: pytest.MonkeyPatch, file: NamedFile) -> None:
    with monkeypatch.context() as patch:
        short(patch, 4, -1)
        assert file.write([b"one\n", b"two\n"]) == 1
        written = short(patch)
        file.write([b"two\n"])
        assert written == [b"two\n"]


def test_notBlocking() -> None:
    """A descriptor that somebody else has set not to block is waited for all the same."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    data = b"x" * (1 << 20)
    writer = threading.Thread(target=writeAll, args=(writing, data))
    try:
        writer.start()
        left = len(data)
        while left:
            left -= len(os.read(reading, 1 << 16))
        writer.join()
    finally:
        os.close(reading)
        os.close(writing)


def test_encoding() -> None:
    """What the terminal's encoding has not is escaped, and never a reason to lose a line."""
    assert StandardStream(1, "ascii").encode("\u00e9\udc80\n") == b"\\xe9\\udc80\n"
    assert StandardStream(1).encode("\u00e9\udc80\n") == b"\xc3\xa9\\udc80\n"


def test_noStandardOutput() -> None:
    """Lines for a standard output that is closed go nowhere."""
    stream = StandardStream(-1)
    assert stream.write([b"a\n", b"b\n"]) == 2
    stream.reopen()
