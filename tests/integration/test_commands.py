"""Options that print and end, where standard output is closed, full, or without a reader."""

from __future__ import annotations

import subprocess

import pytest

from echod.output import FAILED, NO_READER
from tests.integration.daemon import MODULE, PATIENCE, TWISTD

both = pytest.mark.parametrize("command", [TWISTD, MODULE], ids=["twistd", "module"])
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


@both
def test_everythingFull(command: list[str]) -> None:
    """What is wrong with the options keeps its status when nobody can be told."""
    assert shell('"$@" 2>/dev/full', *command, "--nonsense").returncode == 1
    assert shell('"$@" 2>&-', *command, "--nonsense").returncode == 1
