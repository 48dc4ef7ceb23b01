"""
How the tests are divided between processes that run side by side (pytest-xdist).

A run of everything, or of a folder, starts the workers by itself.  A run that names files or tests,
or chooses by ``-k``, has none: it starts at once, and can be stopped in a debugger.  ``-n NUMBER``
overrides both; ``-n 0`` is one process.

About half of a test's time is waiting: for a deadline, for a process that starts.  So there are
more workers than processors.  What takes long comes first; little tests fill the end.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

import pytest

__all__ = [
    "pytest_cmdline_main",
    "pytest_collection_modifyitems",
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
    if option.numprocesses and option.dist in ("no", "load"):
        option.dist = "loadscope"  # our own scopes, see `scopeOf`
        option.loadscopereorder = False  # the order is that of the collection


def isWhole(config: pytest.Config) -> bool:
    """Whether a run is of folders, and neither for a debugger nor for somebody who looks on."""
    option = config.option
    alone = option.keyword or option.usepdb or option.collectonly or option.capture == "no"
    return not alone and all((config.invocation_params.dir / arg).is_dir() for arg in config.args)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In a worker, put first what takes long: files with slow tests, then by folder."""
    if not hasattr(config, "workerinput"):
        return
    slow = {item.path for item in items if item.get_closest_marker("slow")}

    def rank(item: pytest.Item) -> tuple[int, bool]:
        folder = item.path.parent.name
        place = LONG.index(folder) if folder in LONG else len(LONG)
        return place, item.path not in slow

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
