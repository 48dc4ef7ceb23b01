"""
How the tests are divided between processes that run side by side (pytest-xdist).

A run of everything, or of a folder, starts the workers by itself.  A run that names files or tests,
or chooses by ``-k``, has none: it starts at once, and can be stopped in a debugger.  ``-n NUMBER``
overrides both; ``-n 0`` is one process.

About half of a test's time is waiting: for a deadline, for a process that starts.  So there are
more workers than processors.  What takes long comes first; little tests fill the end.

Each worker imports all test modules, and to compile them, with pytest's assertions, takes longer
than the rest of the collection.  So each compiles its share, and finds that of the others.
"""

from __future__ import annotations

import compileall
import contextlib
import functools
import importlib
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

__all__ = [
    "pytest_cmdline_main",
    "pytest_collection",
    "pytest_collection_modifyitems",
    "pytest_configure_node",
    "pytest_terminal_summary",
    "pytest_xdist_make_scheduler",
]

#: The fewest and the most workers; between them, two for each processor.
FEWEST, MOST = 4, 8
#: The folders whose tests take long, the longest first.
LONG = ("packaging", "integration", "conformance", "fuzz")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Choose the number of workers, where the command line does not."""
    option = config.option
    if hasattr(config, "workerinput") or not config.pluginmanager.hasplugin("xdist"):
        return
    if option.numprocesses is None and option.dist == "no" and not option.tx and isWhole(config):
        processors = len(os.sched_getaffinity(0))
        option.numprocesses = min(max(FEWEST, 2 * processors), MOST)
    if option.numprocesses:
        # Where bytecode is not written, each of 300 daemons would compile it: 0.09 s.
        compileall.compile_dir(config.rootpath / "echod", quiet=2)
    if option.numprocesses and option.dist in ("no", "load"):
        option.dist = "loadscope"  # our own scopes, see `scopeOf`
        option.loadscopereorder = False  # the order is that of the collection


def isWhole(config: pytest.Config) -> bool:
    """Whether a run is of folders, and neither for a debugger nor for somebody who looks on."""
    option = config.option
    alone = option.keyword or option.usepdb or option.collectonly or option.capture == "no"
    return not alone and all((config.invocation_params.dir / arg).is_dir() for arg in config.args)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell each worker where their bytecode is: in a folder of this run alone."""
    config = node.config
    if not hasattr(config, "bytecode"):
        config.bytecode = tempfile.mkdtemp(prefix="echod-tests-")
        config.add_cleanup(lambda: shutil.rmtree(config.bytecode))
    node.workerinput["bytecode"] = config.bytecode


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """In a worker, compile what is its share; pytest imports the rest."""
    given: dict[str, Any] | None = getattr(session.config, "workerinput", None)
    if given is None:
        return (yield)
    with bytecode(given["bytecode"]):
        files = sorted(testFiles(session.config))
        number = int(given["workerid"].removeprefix("gw"))
        for path in files[number :: given["workercount"]]:
            name = ".".join(path.relative_to(session.config.rootpath).with_suffix("").parts)
            # pytest comes to it again, and tells.
            with contextlib.suppress(Exception, pytest.skip.Exception):
                importlib.import_module(name)
        return (yield)


def testFiles(config: pytest.Config) -> Iterator[Path]:
    """The test modules of the folders that a run is of."""
    for argument in config.args:
        yield from (config.invocation_params.dir / argument).rglob("test_*.py")


@contextlib.contextmanager
def bytecode(folder: str) -> Iterator[None]:
    """
    Keep bytecode in a folder, within the ``with`` block.

    Not afterwards: tests write modules and change them, which bytecode would hide for a second.
    """
    before = sys.pycache_prefix, sys.dont_write_bytecode
    sys.pycache_prefix, sys.dont_write_bytecode = folder, False
    try:
        yield
    finally:
        sys.pycache_prefix, sys.dont_write_bytecode = before


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In a worker, put first what takes long: by folder, files with slow tests, long files."""
    if not hasattr(config, "workerinput"):
        return
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    sizes = Counter(item.path for item in items)

    def rank(item: pytest.Item) -> tuple[int, bool, int]:
        folder = item.path.parent.name
        place = LONG.index(folder) if folder in LONG else len(LONG)
        return place, item.path not in slow, -sizes[item.path]

    items.sort(key=rank)  # it is stable: a file's tests stay together


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give each worker a scope at a time, in the order of the collection."""
    if config.option.dist != "loadscope":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
        """What runs in one worker, one after another, is a scope."""

        def _split_scope(self, nodeid: str) -> str:
            return scopeOf(nodeid, config.rootpath)

    return Scheduling(config, log)


def scopeOf(nodeid: str, root: Path) -> str:
    """
    What of a test's file runs in its worker: the whole file, or its function alone.

    Files of long tests are divided by functions, if no fixture is made once for the whole file.
    """
    path, _, name = nodeid.partition("::")
    if Path(path).parent.name not in LONG or sharesFixtures(root / path):
        return path
    return f"{path}::{name.partition('[')[0]}"


@functools.cache
def sharesFixtures(path: Path) -> bool:
    """Whether a file has a fixture that is made once for all its tests."""
    return 'scope="module"' in path.read_text()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the figures that tests have recorded with ``record_property("figure", text)``."""
    reports = [one for kind in ("passed", "failed") for one in terminalreporter.getreports(kind)]
    figures = [value for one in reports for key, value in one.user_properties if key == "figure"]
    if figures:
        terminalreporter.section("figures")
        for figure in figures:
            terminalreporter.write_line(str(figure))
