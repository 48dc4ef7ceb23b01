"""The house: rooms, layers and names, as `pyproject.toml`, the documents and the code have them."""

from __future__ import annotations

import ast
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.documentation.tables import PUBLIC, shown

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "echod"
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): ast.parse(path.read_text())
    for path in sorted(PACKAGE.rglob("*.py"))
}
ROOMS = sorted(path.parent.relative_to(PACKAGE) for path in PACKAGE.glob("**/__init__.py"))
ROOMS.remove(Path())


def defined(tree: ast.Module) -> Iterator[str]:
    """The classes and public functions of a module."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) or (
            isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name[0] != "_"
        ):
            yield node.name


def test_namesAreUnique() -> None:
    """No two classes or public functions have one name: whoever reads one knows which it is."""
    where = defaultdict(list)
    for module, tree in MODULES.items():
        for name in defined(tree):
            where[name].append(module)
    assert {name: modules for name, modules in where.items() if len(modules) > 1} == {}


def test_modulesAreUnique() -> None:
    """No two modules or rooms have one name, but for a room and the module that it is about."""
    where = defaultdict(list)
    for module in MODULES:
        parts = module.removesuffix(".__init__").split(".")
        if parts[-2:-1] != parts[-1:]:
            where[parts[-1]].append(module)
    assert {name: modules for name, modules in where.items() if len(modules) > 1} == {}


@pytest.mark.parametrize("room", ROOMS, ids=str)
def test_roomsSayWhatTheyAreFor(room: Path) -> None:
    """Each folder's ``__init__`` says it, and the large ones what they may know."""
    text = ast.get_docstring(MODULES[".".join(("echod", *room.parts, "__init__"))])
    assert text
    assert len(room.parts) > 1 or "may know" in text


@pytest.mark.parametrize("module", MODULES)
def test_modulesSayWhatTheyAreFor(module: str) -> None:
    text = ast.get_docstring(MODULES[module])
    assert text
    assert text.splitlines()[0].endswith((".", ":", "::"))


def test_layersAreDrawn() -> None:
    """docs/architecture.md draws the layers that import-linter holds, in their order."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (layers,) = (each["layers"] for each in contracts["contracts"] if each["type"] == "layers")
    page = (ROOT / "docs" / "architecture.md").read_text()
    drawn = dict(re.findall(r'^ +(l\d+)\["<b>(.+?)</b>', page, re.MULTILINE))
    (chain,) = re.findall(r"^ +(l1(?: --> l\d+)+)$", page, re.MULTILINE)
    assert [drawn[name] for name in chain.split(" --> ")] == layers


def test_testsLieAsTheModulesDo() -> None:
    """Each folder of unit tests is a room; a test module that is named after a module is there."""
    tests = ROOT / "tests" / "unit"
    for path in sorted(tests.rglob("test_*.py")):
        room = path.parent.relative_to(tests)
        assert (PACKAGE / room).is_dir(), path
        name = path.stem.removeprefix("test_")
        homes = {module.rpartition(".")[0] for module in MODULES if module.endswith(f".{name}")}
        assert not homes or ".".join(("echod", *room.parts)) in homes, path


#: What tests start, and no tests: clients that think.
PROGRAMS = {Path("integration/roundtrips.py")}


def test_oneSleep() -> None:
    """Tests wait for what is to happen; time that must pass is waited out in one place, `idle`."""
    tests = ROOT / "tests"
    sleeping = {
        path.relative_to(tests)
        for path in tests.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("time.sleep", "sleep")
    }
    assert sleeping == {Path("integration/daemon.py"), *PROGRAMS}


def test_whatIsPublicIsListed() -> None:
    """docs/api.md has a table, computed from the code, of each public module, and of no other."""
    listed = shown((ROOT / "docs" / "api.md").read_text())
    assert listed == [f"names of echod.{name}" for name in PUBLIC]
