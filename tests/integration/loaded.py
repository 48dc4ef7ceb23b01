"""
Daemons and commands without the third of a second that each of them takes to load.

`loaded` is a process that has imported what ``twistd`` and ``python -m echod`` import, but no
reactor, and forks for each command.  The fork has the command's arguments, calls what the command
calls, and ends as a process ends, see `_leave`: half of the processor time of the tests went into
the imports of 700 processes.

Three commands that start others are done in the fork itself: env(1), prlimit(1), and what passes
sockets as a service manager does (`tests.integration.passing`).

It is for tests that ask what a command says, or what a daemon does once it serves.  What belongs to
the start, such as signals, standard descriptors, memory and what is imported, is for a process of
its own: `tests.integration.daemon.Daemon` and `tests.integration.daemon.run`.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import functools
import gc
import importlib
import itertools
import json
import os
import re
import resource
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from tests.integration.daemon import MODULE, TWISTD, Daemon, run
from tests.integration.passing import PASSING, unwrapped, wrapped

__all__ = ["LoadedDaemon", "loaded", "runLoaded", "runScript"]

#: Seconds for a command; and for the process to load.
PATIENCE = 20.0
#: What they import.
_IMPORTS = (
    "twisted.scripts.twistd",
    "twisted.internet.epollreactor",
    "echod.daemon.options",
    "echod.daemon.process",
    "echod.client.check",
)
_CHECKOUT = Path(__file__).parents[2]
#: Bytes of a request.
_REQUEST = 1 << 18
#: Descriptors of a request: two outputs, a pipe, and what is passed.
_DESCRIPTORS = 3 + 16
#: Where descriptors are kept in a fork until they get their numbers, which are below.
_ABOVE = 512
#: The one thing that prlimit(1) is asked for.
_LIMITED = re.compile(r"prlimit --nofile=(\d+):(\d+) ")
#: Variables of the interpreter and the loader.
_FOR_INTERPRETERS = re.compile("PYTHON|LD_")


class LoadedDaemon(Daemon):
    """
    A daemon that is forked, if it can be.

    It cannot if a command starts it that the fork does not know, or if what Python looks at when it
    starts is not as usual.
    """

    def _launch(self) -> subprocess.Popen[str]:
        if not _isPlain(self._command):
            return super()._launch()
        read, write = os.pipe()
        try:
            process = loaded().start(
                self._command,
                self._cwd,
                self._environment(),
                self._descriptors,
                out=write,
                errors=write,
            )
        finally:
            os.close(write)
        process.stdout = os.fdopen(read)
        return cast("subprocess.Popen[str]", process)


def runLoaded(
    *arguments: str,
    command: list[str] | None = None,
    cwd: Any = None,
    descriptors: Sequence[int] = (),
) -> subprocess.CompletedProcess[str]:
    """As `tests.integration.daemon.run`, forked as `LoadedDaemon` is."""
    words = [*(command or TWISTD), *arguments]
    if not _isPlain(words):
        return run(*arguments, command=command, cwd=cwd, descriptors=descriptors)
    return _ended(words, cwd, descriptors)


def runScript(script: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """Run ``python SCRIPT`` in a fork that has Twisted and echod loaded, but no reactor."""
    return _ended([sys.executable, script], directory)


def _ended(
    words: Sequence[str], cwd: Any, descriptors: Sequence[int] = ()
) -> subprocess.CompletedProcess[str]:
    """What a fork has said, and its status."""
    outRead, outWrite = os.pipe()
    errorRead, errorWrite = os.pipe()
    with open(outRead) as out, open(errorRead) as errors:
        try:
            process = loaded().start(
                words, cwd, descriptors=descriptors, out=outWrite, errors=errorWrite
            )
        finally:
            os.close(outWrite)
            os.close(errorWrite)
        try:
            status = process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        # All of it is there: a few lines, which fit in a pipe.
        return subprocess.CompletedProcess(words, status, out.read(), errors.read())


@functools.cache
def loaded() -> Loaded:
    """The one of this run."""
    return Loaded()


def _isPlain(command: list[str]) -> bool:
    """Whether a fork can do it."""
    while (inner := _started(command)) != command:
        command = inner
    known = any(command[: len(known)] == known for known in (TWISTD, MODULE))
    return known and _interpreters() == _USUAL


def _started(command: list[str]) -> list[str]:
    """The command that this one starts; itself, if it starts none or is not known."""
    if _LIMITED.match(" ".join(command)):
        return command[2:]
    if command[:1] == ["env"] and not any(map(_FOR_INTERPRETERS.match, command)):
        return list(itertools.dropwhile(lambda word: "=" in word, command[1:]))
    return unwrapped(command) if wrapped(command) else command


def _interpreters() -> dict[str, str]:
    """What the environment has for the interpreter and the loader."""
    return {key: value for key, value in os.environ.items() if _FOR_INTERPRETERS.match(key)}


_USUAL = _interpreters()


class Loaded:
    """See the module's docstring.  It starts with the first command, and ends by `close`."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._channel, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def close(self) -> None:
        """End it; what it has forked is not its business."""
        self._theirs.close()
        self._channel.close()  # it is told so, and ends
        if self._process is not None:
            self._process.wait(PATIENCE)

    def start(
        self,
        command: Sequence[str],
        directory: Any = None,
        environment: dict[str, str] | None = None,
        descriptors: Sequence[int] = (),
        *,
        out: int,
        errors: int,
    ) -> Forked:
        """
        Fork for a command: that of ``twistd``, ``python -m echod``, or ``python FILE``.

        :param descriptors: of ours, which it gets too, by the same numbers.
        :param out: the descriptor that becomes its standard output.
        :param errors: its standard error.
        """
        assert _interpreters() == _USUAL
        number = self._theirs.fileno()
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.integration.loaded", str(number)],
                stdin=subprocess.DEVNULL,
                pass_fds=[number],
                cwd=_CHECKOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        request = {
            "command": [str(word) for word in command],
            "directory": str(directory or os.getcwd()),
            "environment": dict(os.environ if environment is None else environment),
            "descriptors": list(descriptors),
        }
        ends, told = os.pipe()
        try:
            socket.send_fds(
                self._channel, [json.dumps(request).encode()], [out, errors, told, *descriptors]
            )
        finally:
            os.close(told)
        return Forked(ends)


class Forked:
    """
    What `subprocess.Popen` is to a child of ours, for a child of `Loaded`'s.

    :ivar pid: its process id.
    :ivar returncode: its exit status, once somebody has asked; minus a signal's number.
    """

    def __init__(self, ends: int) -> None:
        self._ends = ends
        self.returncode: int | None = None
        self.stdout: Any = None
        self.pid = int(self._next(PATIENCE))

    def __del__(self) -> None:
        self._close()

    def _close(self) -> None:
        if self._ends >= 0:
            os.close(self._ends)
            self._ends = -1

    def _next(self, timeout: float | None) -> bytes:
        readable, _, _ = select.select([self._ends], [], [], timeout)
        if not readable:
            raise subprocess.TimeoutExpired("a fork", timeout or 0)
        said = os.read(self._ends, 16)
        assert said, "the process that forks is gone"
        return said

    def poll(self) -> int | None:
        """Its exit status, or None while it runs."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        """
        Wait for its end.

        :raises subprocess.TimeoutExpired: as `subprocess.Popen.wait`.
        """
        if self.returncode is None:
            self.returncode = int(self._next(timeout))
            self._close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, if it runs."""
        if self.poll() is None:
            # As subprocess does: another thread may have waited for it in between.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


def _serve(channel: socket.socket) -> dict[str, Any] | None:
    """Fork for each request; the fork returns it, and the process itself, in the end, None."""
    running: dict[int, tuple[int, int]] = {}
    while True:
        for ready in select.select([channel.fileno(), *running], [], [])[0]:
            if ready in running:
                child, told = running.pop(ready)
                _, status = os.waitpid(child, 0)
                _tell(told, os.waitstatus_to_exitcode(status))
                os.close(told)
                os.close(ready)
                continue
            data, descriptors, _, _ = socket.recv_fds(channel, _REQUEST, _DESCRIPTORS)
            if not data:
                return None
            out, errors, told, *passed = descriptors
            child = os.fork()
            if not child:
                request = dict(json.loads(data))
                channel.detach()
                places = [1, 2, *request["descriptors"]]
                _arrange(dict(zip(places, [out, errors, *passed], strict=True)))
                return request
            for descriptor in (out, errors, *passed):
                os.close(descriptor)
            _tell(told, child)
            running[os.pidfd_open(child)] = (child, told)


def _tell(told: int, number: int) -> None:
    with contextlib.suppress(BrokenPipeError):  # nobody wants to know
        os.write(told, b"%16d" % number)


def _arrange(places: dict[int, int]) -> None:
    """Move open descriptors to their places, and close all others but the standard input."""
    moved = {place: fcntl.fcntl(number, fcntl.F_DUPFD, _ABOVE) for place, number in places.items()}
    os.closerange(3, _ABOVE)
    for place, number in moved.items():
        assert place < _ABOVE, place
        os.dup2(number, place)
    os.closerange(_ABOVE, 2 * _ABOVE)


def _become(request: dict[str, Any]) -> None:
    """Be the command of a request."""
    sys.path.remove(str(_CHECKOUT))  # put there by -m
    os.chdir(request["directory"])
    os.environ.clear()
    os.environ.update(request["environment"])
    command = request["command"]
    while (inner := _started(command)) != command:
        if limit := _LIMITED.match(" ".join(command)):
            resource.setrlimit(resource.RLIMIT_NOFILE, (int(limit[1]), int(limit[2])))
        elif wrapped(command):
            sys.argv = command[2:]
            exec(PASSING, {})
        else:
            os.environ.update(word.split("=", 1) for word in command[1 : -len(inner)])
        command = inner
    program, *arguments = command
    if arguments[:2] == ["-m", "echod"]:
        sys.argv = ["echod", *arguments[2:]]
        runpy.run_module("echod", run_name="__main__", alter_sys=True)
    elif program == sys.executable:
        sys.argv = arguments
        sys.path.insert(0, str(Path(arguments[0]).absolute().parent))
        runpy.run_path(arguments[0], run_name="__main__")
        sys.exit()
    else:
        from twisted.scripts.twistd import run

        sys.argv = [program, *arguments]
        sys.exit(run())


def _leave(status: int) -> None:
    """
    End as the interpreter does, but leave the modules to the kernel.

    Their end cost more than the rest of a command: it writes to each object, which was shared.

    :raises OSError: what is buffered cannot be written.
    """
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    gc.collect()  # whoever speaks at its end speaks now
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)


def _load() -> None:
    from twisted.application.service import IServiceMaker
    from twisted.plugin import getPlugins

    for name in _IMPORTS:
        importlib.import_module(name)
    list(getPlugins(IServiceMaker))
    assert "twisted.internet.reactor" not in sys.modules
    gc.freeze()  # what a fork does not look at stays shared


if __name__ == "__main__":
    _load()
    if found := _serve(socket.socket(fileno=int(sys.argv[1]))):
        try:
            _become(found)
        except SystemExit as end:
            if end.code is None or isinstance(end.code, int):
                with contextlib.suppress(OSError):  # the interpreter tells of it
                    _leave((end.code or 0) & 0xFF)
            raise
