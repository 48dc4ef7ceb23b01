"""The README's minute's tour, typed as it stands there, in a network where its ports are free."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.integration.daemon import PATIENCE, TWISTD, Daemon
from tests.integration.namespaces import namespace, needsRoot
from tests.integration.peers import needs

README = (Path(__file__).parents[2] / "README.md").read_text()
#: A command, with the lines that go on with it, and what it prints.
TYPED = re.compile(r"^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)


@needsRoot
@needs("nc", "netcat-openbsd")
@needs("xxd")
def test_tour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each command of the tour prints what the README says, but for the milliseconds."""
    folder = Path(sys.executable).parent
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    blocks = re.findall(r"^```console\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    tour = [typed for block in blocks for typed in TYPED.findall(block)]
    assert len(tour) >= 8
    with ExitStack() as stack:
        inside = stack.enter_context(namespace())
        stack.enter_context(Daemon(command=[*inside, *TWISTD]))
        for command, printed in tour:
            if command.endswith(" &"):
                words = shlex.split(command.removesuffix(" &"))
                stack.enter_context(Daemon(command=[*inside, *words]))
                continue
            done = subprocess.run(
                [*inside, "bash", "-c", command],
                stdout=subprocess.PIPE,
                cwd=tmp_path,
                text=True,
                timeout=PATIENCE,
                check=True,
            )
            assert withoutTime(done.stdout) == withoutTime(printed), command


def withoutTime(text: str) -> str:
    """What was printed, with any number of milliseconds."""
    return re.sub(r"ms=[\d.]+", "ms=", text.replace("\r\n", "\n").rstrip("\n"))
