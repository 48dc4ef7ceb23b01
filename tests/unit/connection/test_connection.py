"""`echod.connection`: what a subclass writes, what it calls, and what is none of its business."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType

import pytest
from twisted.internet.protocol import Protocol

import echod.client
import echod.kit
import echod.protocols
from echod.connection.connection import Connection
from echod.connection.hooks import ProtocolHooks

DOCUMENT = Path(__file__).parents[3] / "docs" / "writing-a-protocol.md"
ABOVE = (echod.kit, echod.protocols, echod.client)
#: What is on a connection, but for what Twisted's protocols have.
OURS = set(dir(Connection)) - set(dir(Protocol))
PRIVATE = {name for name in OURS if re.match(r"_[a-z]", name)}


def told(verb: str) -> set[str]:
    """The names that the docstring has in the paragraph about what a subclass does so."""
    paragraphs = (inspect.getdoc(Connection) or "").split("\n\n")
    (found,) = [paragraph for paragraph in paragraphs if f"**{verb}**" in paragraph]
    return set(re.findall(r"`([a-z]\w*)`", found))


def subclasses(of: type[Connection] = Connection) -> Iterator[type[Connection]]:
    """Those of echod, in whatever module."""
    for room in ABOVE:
        for module in iter_modules(room.__path__, f"{room.__name__}."):
            import_module(module.name)
    for one in of.__subclasses__():
        if one.__module__.startswith("echod."):
            yield one
        yield from subclasses(one)


def test_hooksAreWritten() -> None:
    """Each hook is told as one to write, and nothing is that is not there."""
    hooks = {
        name
        for name, value in vars(ProtocolHooks).items()
        if not name.startswith("_") and inspect.isfunction(value)
    } - {"attempt", "fault"}
    assert told("writes") == hooks


def test_whatIsCalledIsThere() -> None:
    """What a subclass calls or extends is a public method, and no hook."""
    for verb in ("calls", "extend"):
        for name in told(verb):
            assert inspect.isfunction(getattr(Connection, name)), name
    assert not told("calls") & (told("writes") | told("extend"))


def test_documentSaysTheSame() -> None:
    """The table in docs/writing-a-protocol.md has what the docstring has."""
    text = DOCUMENT.read_text(encoding="utf-8")
    found = re.search(r"\n\| you write .*\n\|---\|---\|\n\| (.*) \| (.*) \|\n", text)
    assert found is not None
    written, called = (set(re.findall(r"`(\w+)`", cell)) for cell in found.groups())
    assert (written, called) == (told("writes"), told("calls"))


def test_onlyHooksAreWritten() -> None:
    """Nothing of echod's writes what is to be called."""
    attributes = {name for name in vars(ProtocolHooks) if not callable(getattr(Connection, name))}
    for one in subclasses():
        written = (set(vars(one)) & OURS) - {"__doc__", "__init__", "__module__"}
        assert written <= told("writes") | told("extend") | attributes, one


@pytest.mark.parametrize("room", ABOVE, ids=lambda room: room.__name__)
def test_privatesArePrivate(room: ModuleType) -> None:
    """No room above reads, writes or shadows what begins with an underscore on a connection."""
    for path in sorted(Path(room.__path__[0]).glob("**/*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute):
                assert node.attr not in PRIVATE, f"{path.name}:{node.lineno}: {node.attr}"
