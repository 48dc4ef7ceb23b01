"""`echod.daemon.commands` and ``echod`` itself: the words, and what each of them does."""

from __future__ import annotations

import signal
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from echod.__main__ import main
from echod.daemon.commands import COMMANDS, load, split, synopsis, unknown

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("arguments", "word", "rest"),
    [
        ([], "serve", []),
        (["--port", "1"], "serve", ["--port", "1"]),
        (["serve"], "serve", []),
        (["serve", "--port", "1"], "serve", ["--port", "1"]),
        (["check", "tcp:1"], "check", ["tcp:1"]),
        (["check", "serve"], "check", ["serve"]),
        (["--help", "check"], "serve", ["--help", "check"]),
        (["nonsense", "--port"], "nonsense", ["--port"]),
        ([""], "", []),
    ],
)
def test_words(arguments: list[str], word: str, rest: list[str]) -> None:
    """The first argument is a word unless it is an option; no word means `serve`."""
    assert split(arguments) == (word, rest)


@pytest.mark.parametrize("word", COMMANDS)
def test_everyWordIsThere(word: str) -> None:
    assert callable(load(word))


@pytest.mark.parametrize(
    ("word", "near"),
    [
        ("chekc", "'check'"),
        ("server", "'serve'"),
        ("protocol", "'protocols'"),
        ("SERVE", "'serve'"),
    ],
)
def test_nearestWord(word: str, near: str) -> None:
    """A word that is misspelt is told the one that it may have been."""
    assert unknown(word) == (
        f"no command {word!r}: did you mean {near}? There are serve, check, protocols;"
        " see echod --help"
    )


@pytest.mark.parametrize("word", ["tcp:1234", "", "x" * 40])
def test_noWordIsNear(word: str) -> None:
    assert unknown(word) == (
        f"no command {word!r}. There are serve, check, protocols; see echod --help"
    )


def run(capsys: Capture, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str, str]:
    """Status, standard output and standard error of the command, in this process."""
    monkeypatch.setattr(sys, "argv", ["echod", *arguments])
    # A command gives SIGINT its default back.
    before = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(SystemExit) as ended:
            main()
    finally:
        signal.signal(signal.SIGINT, before)
    said = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return int(ended.value.code), said.out, said.err


def test_unknown(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line, and status 1; what is no letter is escaped."""
    status, out, err = run(capsys, monkeypatch, "chekc\n", "tcp:1")
    assert (status, out) == (1, "")
    assert err.splitlines() == [f"echod: {unknown(chr(10).join(['chekc', '']))}"]


@pytest.mark.parametrize("arguments", [["--help"], ["serve", "--help"]])
def test_help(arguments: list[str], capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names every word with what it does; then come the options of `serve`."""
    status, out, err = run(capsys, monkeypatch, *arguments)
    assert (status, err) == (0, "")
    assert out.startswith(f"{synopsis()}\n")
    for word, command in COMMANDS.items():
        assert f"echod {word}" in out or word == "serve"
        assert command.what in out
    assert "--drain-timeout" in out


def test_protocols(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ``--list-protocols`` prints."""
    listed = run(capsys, monkeypatch, "protocols")
    assert listed[0] == 0
    assert "raw  " in listed[1]
    assert listed == run(capsys, monkeypatch, "--list-protocols")


def test_protocolsTakesNothing(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    status, out, err = run(capsys, monkeypatch, "protocols", "raw")
    assert (status, out) == (1, "")
    assert err == "echod protocols: 'raw' is too much; see --help\n"
    status, out, err = run(capsys, monkeypatch, "protocols", "--help")
    assert (status, err) == (0, "")
    assert out.startswith("Usage: echod protocols\n")


def test_check(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has its own options and statuses."""
    status, out, err = run(capsys, monkeypatch, "check", "unix:/nobody/here")
    assert (status, out) == (2, "")
    assert err.startswith("echod check: unix /nobody/here: cannot connect")
    status, out, err = run(capsys, monkeypatch, "check", "--help")
    assert (status, err) == (0, "")
    assert out.startswith("usage: echod check ")


def test_checkImportsLittle() -> None:
    """The way through the table of words costs a probe nothing that takes time."""
    program = (
        "import sys\n"
        "sys.argv = ['echod', 'check', 'unix:/nobody/here']\n"
        "from echod.__main__ import main\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        "    print(*sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    modules = set(done.stdout.split())
    assert "echod.client.check" in modules
    unwanted = {
        "twisted",
        "zope",
        "msgspec",
        "cryptography",
        "ssl",
        "difflib",
        "importlib.metadata",
    }
    assert unwanted & modules == set()


def test_consoleScript() -> None:
    """The distribution's command is what ``python -m echod`` runs."""
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    assert [*project["scripts"]] == ["echod"]
    module, _, name = project["scripts"]["echod"].partition(":")
    assert getattr(import_module(module), name) is main
