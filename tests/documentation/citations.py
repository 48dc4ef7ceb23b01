"""What the tests, the code and the documents cite, and whether it is there."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
WIRE = ROOT / "docs" / "wire.md"
TWISTED = ROOT / "docs" / "twisted.md"

#: What nobody can look up who has this repository alone: lists and plans that are elsewhere, and
#: numbers of issues and cases.
ELSEWHERE = re.compile(
    r"\b(?:TRAPS|REQUIREMENTS|DESIGN)\b|\b(?:[Ii]ssue|[Cc]ase)s? #?\d|\bshared/[A-Z]+\.md"
)
#: An id of docs/wire.md.
_ID = r"[ECFLPO][0-9]{1,2}"
#: What a test's docstring begins with if it proves a requirement: ``E1, C5: ...``.
_PROVES = re.compile(rf"({_ID}(?:, {_ID})*)[:.]")
#: How all other text cites one.
_POINTS = re.compile(rf"docs/wire\.md ({_ID}(?:, {_ID})*)")
_WORD = re.compile(rf"(?<![\w/.-]){_ID}(?![\w/-])")
_QUOTED = re.compile(r"(`+)[^`]+\1")
_HEADING = re.compile(rf"^### ({_ID}): (.+)$", re.MULTILINE)
_LIST = re.compile(r"(?<=<!-- tests -->\n).*(?=<!-- end of tests -->)", re.DOTALL)


def requirements() -> dict[str, str]:
    """The titles of docs/wire.md by id."""
    return dict(_HEADING.findall(WIRE.read_text()))


def ids(words: str) -> list[str]:
    return words.split(", ")


def texts() -> Iterator[tuple[str, str]]:
    """Every text file that is ours: its path in the project, and what it says."""
    places = ["echod", "tests", "benchmarks", "examples", "deploy", "docs", "newsfragments"]
    places += ["twisted_plugins", ".ci", ".github"]
    files = [file for place in places for file in sorted((ROOT / place).rglob("*"))]
    for file in [*files, *sorted(ROOT.glob("*.md")), ROOT / "pyproject.toml"]:
        if file.is_file() and "__pycache__" not in file.parts:
            try:
                yield str(file.relative_to(ROOT)), file.read_text()
            except UnicodeDecodeError:
                continue  # an archive, a key


@cache
def testFunctions() -> dict[str, str]:
    """The docstring of each test, by its name as pytest has it: ``tests/a/test_b.py::test_c``."""
    found = {}
    for name, text in texts():
        if not name.startswith("tests/") or not name.endswith(".py"):
            continue
        for node in ast.parse(text).body:
            for function, owner in _functions(node):
                if function.name.startswith("test"):
                    key = f"{name}::{owner}{function.name}"
                    found[key] = ast.get_docstring(function) or ""
    return found


def _functions(
    node: ast.stmt,
) -> Iterator[tuple[ast.FunctionDef | ast.AsyncFunctionDef, str]]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        yield node, ""
    elif isinstance(node, ast.ClassDef):
        for child in node.body:
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                yield child, f"{node.name}::"


def proofs() -> dict[str, list[str]]:
    """The tests that prove each requirement."""
    proving: dict[str, list[str]] = defaultdict(list)
    for test, docstring in testFunctions().items():
        if match := _PROVES.match(docstring):
            for each in ids(match[1]):
                proving[each].append(test)
    return proving


def pointers() -> dict[str, list[str]]:
    """The files that point to each requirement in words: ``docs/wire.md E1``."""
    pointing: dict[str, list[str]] = defaultdict(list)
    for name, text in texts():
        for match in _POINTS.finditer(text):
            for each in ids(match[1]):
                pointing[each].append(name)
    return pointing


def bareIds(name: str, text: str) -> list[str]:
    """Where *text* has an id that is neither of the two forms, which a reader cannot look up."""
    found = []
    for line, prose in _prose(name, text):
        rest = _POINTS.sub("", prose)
        if name.startswith("tests/"):
            rest = _PROVES.sub("", rest, count=1) if _PROVES.match(rest) else rest
        found += [f"{name}:{line}: {word}" for word in _WORD.findall(rest)]
    return found


def _prose(name: str, text: str) -> Iterator[tuple[int, str]]:
    """The comments and docstrings of Python, the sentences of Markdown; each with its line."""
    if name.endswith(".md"):
        text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
        yield 1, _QUOTED.sub("", text)
    elif name.endswith(".py"):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                value = node.value.value
                if isinstance(value, str):
                    yield node.lineno, _QUOTED.sub("", value.strip())
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.COMMENT:
                yield token.start[0], _QUOTED.sub("", token.string)


def computedList() -> str:
    """The list of docs/wire.md: each requirement, and the tests that prove it by file."""
    lines = [""]
    proving = proofs()
    for each, title in requirements().items():
        lines += [f"**{each}** {title}", ""]
        files: dict[str, list[str]] = defaultdict(list)
        for test in proving[each]:
            file, name = test.split("::", 1)
            files[file].append(name)
        for file in sorted(files):
            lines += [f"* `{file}`: " + ", ".join(f"`{name}`" for name in files[file])]
        lines += [""]
    return "\n".join([*lines, ""])


def writtenList() -> str:
    """The list as it is in docs/wire.md."""
    match = _LIST.search(WIRE.read_text())
    return match[0] if match else ""


def write() -> None:
    """Write the list of docs/wire.md anew."""
    WIRE.write_text(_LIST.sub(lambda _: computedList(), WIRE.read_text()))
