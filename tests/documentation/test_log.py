"""docs/log.md and its schema: the events that there are, and recipes that run."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.documentation.code_blocks import codeBlocks
from tests.documentation.log_lines import EVENTS, SCHEMA, read, schema
from tests.documentation.tables import ROOT

PAGE = (ROOT / "docs/log.md").read_text()


def test_schema() -> None:
    """The file is as computed: ``python -m tests.documentation``."""
    assert (ROOT / SCHEMA).read_text() == schema()


def test_everyEventIsDescribed() -> None:
    """The words in the code are those of the schema; `tls` is a layer's name."""
    words = {
        word
        for path in (ROOT / "echod").rglob("*.py")
        for word in re.findall(r"\bevent=\"(\w+)\"", path.read_text())
    }
    assert sorted({*words, "tls", "message", "failure"}) == EVENTS


def examples() -> list[str]:
    """The lines that the page shows."""
    return [line for block in codeBlocks("json", PAGE) for line in block.splitlines() if line]


def test_examples() -> None:
    """They are as the schema says."""
    assert examples()
    assert all(read(line) for line in examples())


@pytest.mark.skipif(shutil.which("jq") is None, reason="no jq here")
def test_recipes(tmp_path: Path) -> None:
    """Each line for jq says something of a log that has what it looks for."""
    line = json.loads(examples()[0])
    lines = [line, {**line, "reason": "stalled", "end": "abort", "cut": 5, "seconds": 3}]
    log = "".join(json.dumps(each) + "\n" for each in lines)
    (tmp_path / "echod.log").write_text(log)
    recipes = [
        each
        for block in codeBlocks("sh", PAGE)
        for each in block.splitlines()
        if each.startswith("jq")
    ]
    said = [
        subprocess.run(
            each, shell=True, cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout
        for each in recipes
    ]
    assert said[0] == f"{line['time']}\t{line['peer']}\t5\n"
    assert json.loads("[" + said[1].replace("}\n{", "},{") + "]") == [{"quit": 0.1}, {"stalled": 3}]
