"""Protocols of other distributions, found by their entry points."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.integration.daemon import MODULE, Daemon, exchange, receiveAll, run
from tests.integration.peers import connect, noise

ROT13 = '''
"""Twenty lines that somebody else wrote."""

from echod.connection.connection import Connection
from echod.kit.makers import ConnectionMaker

TABLE = bytes.maketrans(b"abcdefghijklmnopqrstuvwxyz", b"nopqrstuvwxyzabcdefghijklm")


class Rot13(Connection):
    def received(self, data):
        self.reply(data.translate(TABLE))


rot13 = ConnectionMaker("rot13", "each letter is moved by thirteen", Rot13)
'''


def install(folder: Path, distribution: str, entries: str, **modules: str) -> None:
    """What pip would leave of a distribution."""
    name, _, version = distribution.partition(" ")
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[echod.protocols]\n{entries}\n")
    for module, text in modules.items():
        (folder / f"{module}.py").write_text(text)


@pytest.fixture
def others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sound distribution and two broken ones, importable by daemons."""
    install(tmp_path, "echod-rot13 1.0", "rot13 = echod_rot13:rot13", echod_rot13=ROT13)
    install(tmp_path, "lost 2.1", "lost = lost_its_module:maker")
    install(tmp_path, "quitter 3", "quits = quitter:maker", quitter="raise SystemExit(3)\n")
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    monkeypatch.setenv("PYTHONPATH", path)


NO_MODULE = "ModuleNotFoundError: No module named 'lost_its_module'"
PROBLEMS = [
    f"protocol 'lost' of lost 2.1 is left out: {NO_MODULE}",
    "protocol 'quits' of quitter 3 is left out: SystemExit: 3",
]


BROKEN = {
    "no equals sign": b"[console_scripts]\nbroken\n",
    "no UTF-8": b"\xff\xfe[a]\n",
    "ours": b"[echod.protocols]\nbroken\n",
}


@pytest.mark.usefixtures("others")
@pytest.mark.parametrize("nameless", [False, True], ids=["named", "nameless"])
@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_unreadable(tmp_path: Path, content: bytes, nameless: bool) -> None:
    """A distribution whose entry points cannot be read costs a line; the others are served."""
    install(tmp_path, "stranger 1", "")
    info = tmp_path / "stranger-1.dist-info"
    (info / "entry_points.txt").write_bytes(content)
    if nameless:
        (info / "METADATA").write_bytes(b"Name: \xff\n")
    done = run("--listen", "rot13=tcp:0", "--check-config", command=MODULE)
    assert (done.returncode, done.stderr) == (0, "")
    assert "would listen rot13 tcp 127.0.0.1:0" in done.stdout
    name = f"a distribution in {tmp_path}" if nameless else "distribution stranger"
    (line,) = (line for line in done.stdout.splitlines() if name in line)
    assert line.startswith(f"note: {name} is left out: its entry points cannot be read: ")


@pytest.mark.usefixtures("others")
def test_shadowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two distributions with one name the first on the path counts, also one without any."""
    first = tmp_path / "first"
    first.mkdir()
    install(first, "Echod_ROT13 2.0", "")
    monkeypatch.setenv("PYTHONPATH", str(first), prepend=os.pathsep)
    assert "rot13" not in run("--list-protocols", command=MODULE).stdout


@pytest.mark.usefixtures("others")
def test_listed() -> None:
    """``--list-protocols`` names each with its distribution; the broken ones on standard error."""
    done = run("--list-protocols", command=MODULE)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert "rot13  each letter is moved by thirteen  (echod-rot13 1.0)" in lines
    assert "lost" not in done.stdout
    assert done.stderr.splitlines() == [f"echod: {problem}" for problem in PROBLEMS]


@pytest.mark.usefixtures("others")
def test_served() -> None:
    """A third party's protocol is served like echod's own; broken ones cost a line each."""
    arguments = ["--listen", "rot13=tcp:0", "--port", "0", "--listen", "discard=tcp:0"]
    with Daemon(*arguments) as daemon:
        assert exchange(connect(daemon, "rot13"), b"uryyb, jbeyq\n") == b"hello, world\n"
        data = noise(1_000_000)
        assert exchange(connect(daemon), data) == data
        # RFC 863: it reads all, and never answers.
        assert exchange(connect(daemon, "discard"), data) == b""
        counters = daemon.counters()
        assert counters["rot13"]["closed"] == {"eof": 1}
        assert counters["discard"]["bytes_in"] == len(data)
        assert counters["discard"]["bytes_out"] == 0
        with connect(daemon, "rot13") as client:
            client.sendall(b"qenva")
            daemon.signal()
            assert receiveAll(client) == b"drain"
        assert daemon.wait() == 0
        for problem in PROBLEMS:
            assert sum(problem in line for line in daemon.lines) == 1


@pytest.mark.usefixtures("others")
def test_brokenIsAskedFor() -> None:
    """Who asks for a broken one is told why, and by whom, in one line; exit 1."""
    done = run("--listen", "quits=tcp:0", command=MODULE)
    assert done.returncode == 1
    assert done.stderr == f"echod: --listen quits=tcp:0: {PROBLEMS[1]}\n"


@pytest.mark.usefixtures("others")
def test_optionsOfOneWithoutAny() -> None:
    """An option for a protocol that has none is refused, in one line; exit 1."""
    done = run("--listen", "rot13=tcp:0", "-o", "rot13.key=x", command=MODULE)
    assert done.returncode == 1
    assert done.stderr == "echod: --option rot13: protocol 'rot13' has no options\n"
