"""
What prints and ends, where standard output is closed, full, or without a reader.

That is some options, and ``check``; which also ends by a signal as any command does.
"""

from __future__ import annotations

import signal
import socket
import subprocess
from collections.abc import Iterator

import pytest

from echod.output import FAILED, NO_READER
from tests.integration.daemon import MODULE, PATIENCE, Daemon, both

options = pytest.mark.parametrize(
    "option", ["--check-config", "--list-protocols", "--help", "--version"]
)


def shell(script: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run ``"$@"`` within a script of bash's."""
    return subprocess.run(
        ["bash", "-c", script, "bash", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@both
@options
def test_closed(command: list[str], option: str) -> None:
    """Who closes it wants the status alone."""
    done = shell('"$@" >&-', *command, option)
    assert (done.returncode, done.stderr) == (0, "")


@both
@options
def test_full(command: list[str], option: str) -> None:
    """One line, and a status that is neither "wrong usage" nor Python's 120."""
    done = shell('"$@" >/dev/full', *command, option)
    why = "standard output cannot be written: No space left on device; redirect it"
    assert (done.returncode, done.stderr) == (FAILED, f"echod: {why}\n")


@both
@options
def test_readerGone(command: list[str], option: str) -> None:
    """Silent, with the status that a shell shows for SIGPIPE."""
    done = shell('"$@" | true; echo "${PIPESTATUS[0]}"', *command, option)
    assert (done.stdout, done.stderr) == (f"{NO_READER}\n", "")


@pytest.mark.parametrize("word", ["protocols", "protocols --help"])
def test_protocols(word: str) -> None:
    """The word says the same as the option, where it can be said."""
    command = [*MODULE, *word.split()]
    done = shell('"$@" >&-', *command)
    assert (done.returncode, done.stderr) == (0, "")
    done = shell('"$@" >/dev/full', *command)
    why = "standard output cannot be written: No space left on device; redirect it"
    assert (done.returncode, done.stderr) == (FAILED, f"echod protocols: {why}\n")
    done = shell('"$@" | true; echo "${PIPESTATUS[0]}"', *command)
    assert (done.stdout, done.stderr) == (f"{NO_READER}\n", "")


def test_unknownWord() -> None:
    """One line with the nearest word, and its status when nobody can be told."""
    done = shell('"$@"', *MODULE, "chekc", "tcp:1234")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("echod: no command 'chekc': did you mean 'check'? ")
    assert len(done.stderr.splitlines()) == 1
    assert shell('"$@" 2>&-', *MODULE, "chekc").returncode == 1


@both
def test_everythingFull(command: list[str]) -> None:
    """What is wrong with the options keeps its status when nobody can be told."""
    assert shell('"$@" 2>/dev/full', *command, "--nonsense").returncode == 1
    assert shell('"$@" 2>&-', *command, "--nonsense").returncode == 1


# -- The probe -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place() -> Iterator[str]:
    """Where a daemon echoes."""
    with Daemon("--listen", "raw=tcp:0") as daemon:
        yield f"tcp:{daemon.ports['raw']}"


CHECK = [*MODULE, "check"]


@pytest.mark.parametrize("closed", [">&-", "<&-", "2>&-", "<&- >&- 2>&-"])
def test_checkClosed(place: str, closed: str) -> None:
    """The status is all it says; no socket is taken for what is closed."""
    done = shell(f'"$@" {closed}', *CHECK, place)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("words", [("{place}",), ("--help",)])
def test_checkFull(place: str, words: tuple[str, ...]) -> None:
    """A daemon that is well is not blamed, and neither is the usage."""
    done = shell('"$@" >/dev/full', *CHECK, *(word.format(place=place) for word in words))
    why = "standard output cannot be written: No space left on device; redirect it"
    assert (done.returncode, done.stderr) == (FAILED, f"echod check: {why}\n")


@pytest.mark.parametrize("words", [("{place}",), ("--help",)])
def test_checkReaderGone(place: str, words: tuple[str, ...]) -> None:
    given = [word.format(place=place) for word in words]
    done = shell('"$@" | true; echo "${PIPESTATUS[0]}"', *CHECK, *given)
    assert (done.stdout, done.stderr) == (f"{NO_READER}\n", "")


@pytest.mark.parametrize("errors", ["2>/dev/full", "2>&-"])
def test_checkCannotComplain(errors: str) -> None:
    """What is found keeps its status when nobody can be told."""
    assert shell(f'"$@" {errors}', *CHECK, "unix:/nobody/here").returncode == 2
    assert shell(f'"$@" {errors}', *CHECK, "--nonsense").returncode == 1


@pytest.mark.parametrize("letters", ["ascii", "latin-1"])
def test_checkLetters(letters: str) -> None:
    """A host that the locale has no letters for."""
    script = f'PYTHONIOENCODING={letters} "$@"'
    done = shell(script, *CHECK, "tcp:7:host=\u014duter.invalid")
    assert done.returncode == 2
    assert "tcp \\u014duter.invalid:7: cannot connect: " in done.stderr


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_checkEnds(end: signal.Signals) -> None:
    """Without a word, and with the status that says by what: a loop of a shell's ends too."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(PATIENCE)
        process = subprocess.Popen(
            [*CHECK, "--timeout", str(PATIENCE), f"tcp:{silent.getsockname()[1]}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        connected, _ = silent.accept()
        with connected:
            process.send_signal(end)
            said, _ = process.communicate(timeout=PATIENCE)
    assert (process.returncode, said) == (-end, "")


@pytest.mark.parametrize("options", [["-W", "error"], ["-O"], ["-OO"], ["-X", "dev"], ["-I"]])
@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_checkUnderOptions(place: str, options: list[str], kind: str) -> None:
    """Python's own options change nothing, and no warning reaches the user."""
    place = place if kind == "tcp" else "udp:1:host=127.0.0.1"
    python, *rest = CHECK
    done = shell('"$@"', python, *options, *rest, place)
    found = (0, "") if kind == "tcp" else (2, done.stderr)
    assert (done.returncode, done.stderr) == found
    assert len(done.stderr.splitlines()) <= 1
