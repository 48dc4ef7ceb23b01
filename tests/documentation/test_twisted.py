"""docs/twisted.md: each example prints what the page says, and each test that it names is there."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.documentation import citations
from tests.integration.conftest import loadedProcess  # noqa: F401  # a fixture
from tests.integration.loaded import runScript

PAGE = citations.TWISTED.read_text()
_MODULE = re.compile(r'^```python\n("""(\w+\.py): .*?)^```$', re.MULTILINE | re.DOTALL)
_EXAMPLE = re.compile(r"^```python\n([^`]*)^```\n\n```text\n([^`]*)^```$", re.MULTILINE)
_TEST = re.compile(r"`(tests/[\w/]+\.py::[\w:]+)`")


def entries() -> dict[str, str]:
    """What is below each title."""
    found = re.split(r"^### (.+)$", PAGE, flags=re.MULTILINE)
    return {
        title: re.split(r"^## ", text, flags=re.MULTILINE)[0]
        for title, text in zip(found[1::2], found[2::2], strict=True)
    }


def runAlone(script: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """Run ``python SCRIPT``."""
    return subprocess.run(
        [sys.executable, script],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def examples() -> dict[str, tuple[str, str]]:
    """By title, the examples that can be run: the code, and what it prints."""
    found = {title: _EXAMPLE.search(text) for title, text in entries().items()}
    return {title: (match[1], match[2]) for title, match in found.items() if match}


def test_whatIsNotRun() -> None:
    """What needs root, and a daemon, is not run as the others are, and is no more than one."""
    (title,) = entries().keys() - examples().keys()
    assert "```pycon\n# As root, " in entries()[title]


@pytest.mark.slow
@pytest.mark.parametrize("title", examples())
def test_example(tmp_path: Path, title: str) -> None:
    """
    It is run as a reader would, with the page's modules beside it.

    What is not about what Twisted loads has that already: half of the time of most.
    """
    code, output = examples()[title]
    if ("traptls" in code or "OpenSSL" in code) and not importlib.util.find_spec("OpenSSL"):
        pytest.skip("without pyOpenSSL Twisted has no TLS")
    for text, name in _MODULE.findall(PAGE):
        (tmp_path / name).write_text(text)
    (tmp_path / "example.py").write_text(code)
    start = runAlone if "sys.modules" in code else runScript
    done = start("example.py", tmp_path)
    assert done.stdout.strip() == output.strip(), done.stderr


@pytest.mark.parametrize("title", entries())
def test_proof(title: str) -> None:
    """Each entry says what echod does and names tests, which are there."""
    text = entries()[title]
    assert "**echod:** " in text
    named = _TEST.findall(text)
    assert named
    assert [test for test in named if test not in citations.testFunctions()] == []


def test_modules() -> None:
    """The modules that examples import are on the page."""
    imported = set(re.findall(r"^from (trap\w*) import", PAGE, re.MULTILINE))
    assert imported == {name.removesuffix(".py") for _, name in _MODULE.findall(PAGE)}
