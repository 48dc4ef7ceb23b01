"""
What every test is held to, besides its own assertions.

A logged error, an unhandled error in a Deferred or a descriptor that stays open fails the
test; left to themselves they pass silently.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher
from twisted.python.reflect import safe_str
from zope.interface import implementer

from echod.insight.fault_log import allowFaults
from tests.certificates import Certificates
from tests.workers import (  # noqa: F401  # hooks, which pytest finds in this module
    pytest_cmdline_main,
    pytest_collection,
    pytest_collection_modifyitems,
    pytest_configure_node,
    pytest_terminal_summary,
    pytest_xdist_make_scheduler,
)

# Daemons inherit what is ignored, and keep to it: a run by nohup or a script's `&` would see that.
for number, handler in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)

settings.register_profile("default", deadline=None, derandomize=True, max_examples=200)
# Tracing makes everything several times slower, and counts no better for more examples.
settings.register_profile("coverage", deadline=None, derandomize=True, max_examples=25)
settings.register_profile("long", deadline=None, max_examples=5000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@implementer(ILogObserver)
class LoggedErrors:
    """The errors that were logged; `flush` those that a test expects."""

    def __init__(self) -> None:
        self._events: list[LogEvent] = []

    def __call__(self, event: LogEvent) -> None:
        level = event.get("log_level")
        if event.get("isError") or event.get("log_failure") or level is LogLevel.critical:
            self._events.append(event)

    def flush(self) -> list[str]:
        """Take what was logged so far, as text."""
        gc.collect()  # an unhandled Deferred speaks when it is collected
        events, self._events = self._events, []
        return [
            formatEvent(event) + safe_str(getattr(event.get("log_failure"), "value", ""))
            for event in events
        ]


def openDescriptors() -> set[str]:
    """Number and target of each open descriptor of this process."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the one that listed the directory
            found.add(f"{number}: {os.readlink(f'/proc/self/fd/{number}')}")
    return found


@contextlib.contextmanager
def noLoggedErrors() -> Iterator[LoggedErrors]:
    """Fail at the block's end for errors logged in it and not flushed."""
    errors = LoggedErrors()
    globalLogPublisher.addObserver(errors)
    try:
        yield errors
        assert errors.flush() == []
    finally:
        globalLogPublisher.removeObserver(errors)


@pytest.fixture(scope="session", autouse=True)
def wholeHeap() -> Iterator[None]:
    """
    Look once, after the last test, at what was there before its module: see `ownHeap`.
    """
    yield
    gc.unfreeze()
    with noLoggedErrors():
        pass  # it collects


@pytest.fixture(scope="module", autouse=True)
def ownHeap(wholeHeap: None) -> Iterator[None]:
    """
    Look at what the module has made, and not at what was there before.

    Each test collects, and 200 000 objects that are modules, functions and tests took 0.1 s each
    time: a third of the run.  What is frozen is not looked at.
    """
    gc.freeze()
    yield
    with noLoggedErrors():
        pass  # it collects


@pytest.fixture(autouse=True)
def tracebacks() -> None:
    """Give each test a ration of tracebacks of its own: the process has one for all."""
    allowFaults()


@pytest.fixture(autouse=True)
def loggedErrors() -> Iterator[LoggedErrors]:
    """Fail the test for errors logged and not flushed."""
    with noLoggedErrors() as errors:
        yield errors


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """See `Certificates`."""
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session", autouse=True)
def runningReactor(request: pytest.FixtureRequest) -> None:
    """
    Open the reactor's own descriptors now, not within some test that counts them.

    The first import of it does, and twisted.web imports it; pytest-twisted starts it later.
    """
    from twisted.internet import reactor

    if request.config.pluginmanager.hasplugin("twisted"):
        import pytest_twisted
        from twisted.internet.task import deferLater

        pytest_twisted.blockon(deferLater(reactor, 0))


@pytest.fixture(autouse=True)
def noLeakedDescriptors(runningReactor: None) -> Iterator[None]:
    """Fail the test for descriptors that it leaves open."""
    before = openDescriptors()
    yield
    if openDescriptors() - before:
        gc.collect()  # what is only waiting for that is no leak; warnings tell of it
    assert openDescriptors() - before == set()
