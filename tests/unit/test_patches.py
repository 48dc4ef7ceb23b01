"""
Nothing of echod's is replaced by its tests, as far as that can be seen in what is written.

A test may replace what is others': a system call, a part of Twisted.  What a test replaces it does
not test.  So of echod it brings the real situation about, or gives a parameter: a clock, a number
of seconds, a maker.
"""

from __future__ import annotations

import ast
import functools
import textwrap
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def functionsOf(*trees: ast.AST) -> set[str]:
    """What functions and methods are named there."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for tree in trees for node in ast.walk(tree) if isinstance(node, kinds)}


@functools.cache
def ours() -> set[str]:
    """Those of echod."""
    return functionsOf(*(ast.parse(path.read_text()) for path in ROOT.glob("echod/**/*.py")))


def programs(tree: ast.AST) -> Iterator[ast.AST]:
    """A module, and those of its texts that are programs for other processes."""
    yield tree
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "\n" in node.value:
            # Other texts are not even in an encoding.
            with suppress(SyntaxError, ValueError):
                yield ast.parse(textwrap.dedent(node.value))


class Names:
    """What a module's names stand for."""

    def __init__(self, tree: ast.AST) -> None:
        nodes = list(ast.walk(tree))
        # By what is imported: its package.
        self._packages: dict[str, str] = {}
        for node in nodes:
            if isinstance(node, ast.Import | ast.ImportFrom):
                for each in node.names:
                    module = each.name if isinstance(node, ast.Import) else node.module or ""
                    name = each.asname or each.name.partition(".")[0]
                    self._packages[name] = module.partition(".")[0]
        classes = {node.name for node in nodes if isinstance(node, ast.ClassDef)}
        self._code = functionsOf(tree) | classes

    def packageOf(self, target: ast.AST) -> str:
        """Of which package an expression is, or what a text names; ``""``: that is not known."""
        while isinstance(target, ast.Attribute | ast.Subscript):
            target = target.value
        if isinstance(target, ast.Constant):
            return str(target.value).partition(".")[0]
        return self._packages.get(target.id, "") if isinstance(target, ast.Name) else ""

    def isCode(self, value: ast.AST) -> bool:
        """Whether it may be a function, a class or a method."""
        known = isinstance(value, ast.Name) and value.id in self._code
        return known or isinstance(value, ast.Lambda | ast.Attribute)


def isPatch(node: ast.AST, names: Names) -> bool:
    """Whether it replaces something of echod's."""
    match node:
        case ast.Import() | ast.ImportFrom():
            return "mock" in ast.unparse(node)
        case ast.Attribute(ctx=ast.Store() | ast.Del()):
            return names.packageOf(node) == "echod"
        case ast.Call(func=ast.Name("setattr" | "delattr"), args=[target, *_]):
            return names.packageOf(target) == "echod"
        case ast.Call(func=ast.Attribute(attr="setattr" | "delattr"), args=[target, *_]):
            # By pytest's ``monkeypatch``: what a test has made may be anybody's.
            return names.packageOf(target) in ("echod", "tests", "")
        case ast.Assign(targets=[ast.Attribute(value=ast.expr() as owner, attr=attribute)]):
            # Of an object: what its class is cannot be seen, but what the method is named.
            return (
                names.packageOf(owner) == ""
                and ast.unparse(owner) != "self"
                and (attribute == "__class__" or (attribute in ours() and names.isCode(node.value)))
            )
    return False


def patches(tree: ast.AST) -> list[str]:
    """What replaces something of echod's, as it is written."""
    names = Names(tree)
    return [ast.unparse(node) for node in ast.walk(tree) if isPatch(node, names)]


def test_nothingOfOursIsPatched() -> None:
    tests = ROOT / "tests"
    assert [
        f"{path.relative_to(tests)}: {patch}"
        for path in sorted(tests.rglob("*.py"))
        for tree in programs(ast.parse(path.read_text()))
        for patch in patches(tree)
    ] == []


@pytest.mark.parametrize(
    "text",
    [
        "monkeypatch.setattr('echod.daemon.process.PATIENCE', 1)",
        "from echod.daemon import process; monkeypatch.setattr(process, 'PATIENCE', 1)",
        "from echod.daemon import process as words; words.PATIENCE = 1",
        "import echod.daemon; del echod.daemon.process.PATIENCE",
        "from echod.daemon.process import Daemon; Daemon.end = None",
        "from echod.daemon.process import Daemon; setattr(Daemon, 'end', None)",
        "with monkeypatch.context() as patch: patch.delattr(listener, 'stopService')",
        "listener.stopService = lambda: None",
        "listener.stopService = calls.append",
        "connection.__class__ = Mine",
        "from unittest.mock import patch",
        "from unittest import mock",
    ],
)
def test_patchesAreFound(text: str) -> None:
    assert len(patches(ast.parse(text))) == 1


@pytest.mark.parametrize(
    "text",
    [
        "monkeypatch.setattr('twisted.protocols.tls._get_default_clock', None)",
        "import socket; monkeypatch.setattr(socket, 'socket', None)",
        "import time as clock; monkeypatch.setattr(clock, 'time', None)",
        "from threading import Thread; monkeypatch.delattr(Thread, 'start')",
        "listener.value = listener.stopService = 1",
        "self.stopService = lambda: None",
    ],
)
def test_whatIsOthersMayBePatched(text: str) -> None:
    assert patches(ast.parse(text)) == []


def test_programsAreRead() -> None:
    """Also what a test writes into a file, for another process to import."""
    text = "code = '''\n    from echod import startup\n    startup.begin = print\n'''"
    assert [patches(tree) for tree in programs(ast.parse(text))] == [[], ["startup.begin"]]
