"""What the pages say of the code: tables, files, messages and links, each held to the code."""

from __future__ import annotations

import ast
import errno
import inspect
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from echod.config.conversion import convert
from echod.config.settings import Configuration, parseConfiguration
from echod.config.tls_settings import TLSSettings
from echod.server import admission, datagram_guard, outermost_factory, stream_listener
from echod.server.counters import DATAGRAMS, PROCESS, REFUSED, STREAMS
from echod.server.plan import ListenerRequest, plan
from echod.server.registry import Registry
from echod.server.service import EchodService
from echod.transports import udp
from echod.wire.networks import Networks
from tests.documentation.code_blocks import codeBlocks
from tests.documentation.tables import TABLES, computed, pages, shown
from tests.unit.outer import Outer

ROOT = Path(__file__).parents[2]
#: The text of each page, by its path from the project's root.
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for pattern in ("*.md", "docs/*.md", "deploy/**/*.md", "examples/*/*.md", "benchmarks/*.md")
    for path in sorted(ROOT.glob(pattern))
}
#: The name of a test, where it is defined.
DEFINED = re.compile(r"def (test_\w+)")
#: What docs/troubleshooting.md cites of others: msgspec, and twistd.
OF_OTHERS = ("Object contains unknown field", "Unknown command: echod")


def test_files() -> None:
    """The files that the pages show can be read, down to TLS's keys and networks."""
    tables = [
        table
        for text in PAGES.values()
        for block in codeBlocks("toml", text)
        if "[[listener]]" in block
        for table in parseConfiguration(block).listener or []
    ]
    assert any(Networks(table.get("proxy", ()), ()) for table in tables)
    secured = [convert(table["tls"], TLSSettings) for table in tables if "tls" in table]
    assert secured


def test_everyKeyOfTLS() -> None:
    """The example of docs/tls.md has every key of TLS."""
    example = "\n".join(codeBlocks("toml", PAGES["docs/tls.md"]))
    names = {*TLSSettings.__struct_encode_fields__} - {"names"}
    assert [key for key in sorted(names) if f"\n{key} = " not in example] == []
    assert "\n[listener.tls.names]" in example


# -- What is computed from the code ------------------------------------------------------------


@pytest.mark.parametrize("name", pages())
def test_computedTables(name: str) -> None:
    """What the page says of keys, options and counters is what the code says."""
    text = PAGES[name]
    mend = f"{name} differs from the code: run python -m tests.documentation"
    assert computed(text) == text, mend


def test_everyTableIsShown() -> None:
    """Each table has its place in a page."""
    assert {table for name in pages() for table in shown(PAGES[name])} == {*TABLES}


@pytest.mark.parametrize("table", TABLES)
def test_everyMeaning(table: str) -> None:
    """Whatever is in a table is said to mean something."""
    head, _, *rows = [line.strip("| ").split(" | ") for line in TABLES[table]().splitlines()]
    meaning = next(head.index(title) for title in ("meaning", "what it does") if title in head)
    assert rows
    assert [row for row in rows if not row[meaning].strip()] == []


def test_everyCounter() -> None:
    """The counters that are explained are those that SIGUSR1 shows, in their order."""
    endpoints = {"raw": "tcp:0", "udp": "udp:0"}
    service = EchodService(
        plan(
            Configuration(),
            [
                ListenerRequest(place="here", protocol=protocol, endpoint=endpoint)
                for protocol, endpoint in endpoints.items()
            ],
            Registry(),
            4096,
        ),
        Outer(),
    )
    service.privilegedStartService()
    try:
        told = service.counters()
    finally:
        for listener in service.listeners:
            listener.abandon()
    streams, datagrams = told["listeners"]
    assert [*told] == [*PROCESS]
    assert [*streams] == [*STREAMS]
    assert [*datagrams] == [*DATAGRAMS]


def test_everyRefusal() -> None:
    """The reasons that are explained are those that the code counts."""
    counted = set()
    for module in (admission, datagram_guard, outermost_factory, stream_listener, udp):
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            match node:
                case ast.FunctionDef(name="refusal" | "_refusal"):
                    found = [each.value for each in ast.walk(node) if isinstance(each, ast.Return)]
                case ast.Assign(targets=[ast.Name("why")], value=ast.IfExp(orelse=value)):
                    found = [value]
                case ast.Assign(targets=[ast.Name("why")], value=value):
                    found = [value]
                case ast.Call(
                    func=ast.Attribute(value=ast.Attribute(attr="refused"), attr="add"),
                    args=[value, _],
                ):
                    found = [value]
                case _:
                    found = []
            counted |= {each.value for each in found if isinstance(each, ast.Constant)}
    counted.discard(None)
    assert counted == {*REFUSED}


# -- What holds the pages together -------------------------------------------------------------


@pytest.mark.parametrize("name", PAGES)
def test_links(name: str) -> None:
    """Each link leads to a file that is there, and to a title in it."""
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", PAGES[name]):
        if "://" in link:
            continue
        path, _, title = link.partition("#")
        target = (ROOT / name).parent / path if path else ROOT / name
        if not target.exists() or (title and title not in titles(target)):
            dead.append(link)
    assert dead == []


def test_namesOfPatterns() -> None:
    """What docs/patterns.md names of a file is in that file."""
    cited = re.findall(r"\]\((\S+)\) \(((?:`\w+`(?:, )?)+)\)", PAGES["docs/patterns.md"])
    assert cited
    for path, names in cited:
        text = (ROOT / "docs" / path).read_text()
        assert [name for name in re.findall(r"\w+", names) if name not in text] == [], path


def test_index() -> None:
    """The index leads to every page of docs/."""
    index = PAGES["docs/README.md"]
    names = {Path(name).name for name in PAGES if name.startswith("docs/")} - {"README.md"}
    assert [name for name in sorted(names) if f"]({name})" not in index] == []


def test_readmeIsShort() -> None:
    """One can read it in a minute; the rest is in docs/."""
    assert len(PAGES["README.md"].splitlines()) <= 150


def test_messages() -> None:
    """What docs/troubleshooting.md says that one sees is what the code prints."""
    known = " ".join([*constants(), *map(os.strerror, errno.errorcode), *OF_OTHERS])
    rows = re.findall(r"^\| (.*?) \| ", PAGES["docs/troubleshooting.md"], re.MULTILINE)
    messages = [code for row in rows for code in re.findall(r"`([^`]+)`", row) if " " in code]
    assert len(messages) > 30
    # Values are cut out, and what the system or an other error says may follow a colon.
    pieces = {
        piece.strip(" :;'\"(),")
        for message in messages
        for piece in re.split(r"…|: |; |=\S*", message)
    }
    assert {piece for piece in pieces if piece not in known} == set()


def test_citedTests() -> None:
    """The tests that docs/robustness.md cites are there."""
    page = PAGES["docs/robustness.md"]
    paths = {str(path.relative_to(ROOT)): path for path in sorted((ROOT / "tests").rglob("*.py"))}
    names = {name for path in paths.values() for name in DEFINED.findall(path.read_text())}
    files = re.findall(r"[\w/]+\.py\b", page)
    missing = [file for file in files if not any(path.endswith(f"/{file}") for path in paths)]
    missing += [name for name in re.findall(r"\btest_\w+\b(?!\.py)", page) if name not in names]
    assert [file for file in missing if file not in paths] == []


def titles(page: Path) -> set[str]:
    """A page's titles, as links name them."""
    found = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in found}


def constants() -> Iterator[str]:
    """Every text in the code of echod; of a format its parts."""
    for path in sorted((ROOT / "echod").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield re.sub(r"\{[^{}]*\}", " ", node.value)
