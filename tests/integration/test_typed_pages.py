"""What pages have one type, typed as it stands there, in a network where its ports are free."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.integration.daemon import PATIENCE, Daemon
from tests.integration.namespaces import namespace, needsRoot
from tests.integration.peers import needs

ROOT = Path(__file__).parents[2]
#: A command, with the lines that go on with it, and what it prints.
TYPED = re.compile(r"^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)


@needsRoot
@pytest.mark.skipif(
    not Path(sys.executable).with_name("echod").exists(),
    reason="this environment has no command echod: install again (pip install -e .)",
)
@needs("nc", "netcat-openbsd")
@needs("xxd")
@needs("openssl")
@pytest.mark.parametrize(
    ("page", "steps"), [("README.md", 8), ("docs/protocols.md", 4), ("docs/tls.md", 4)]
)
def test_tour(page: str, steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Each command of a page prints what the page says, but for the milliseconds.

    :param steps: how many commands there are at least; docs/tls.md makes a certificate first.
    """
    folder = Path(sys.executable).parent
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    text = (ROOT / page).read_text()
    blocks = re.findall(r"^```(sh|console)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    tour = [typed for kind, block in blocks if kind == "console" for typed in TYPED.findall(block)]
    tour[:0] = [(block, "") for kind, block in blocks if kind == "sh" and "openssl" in block]
    assert len(tour) >= steps
    with ExitStack() as stack:
        inside = stack.enter_context(namespace())
        stack.enter_context(Daemon(command=[*inside, "echod"]))
        for command, printed in tour:
            if command.endswith(" &"):
                words = shlex.split(command.removesuffix(" &"))
                stack.enter_context(Daemon(command=[*inside, *words], cwd=tmp_path))
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
