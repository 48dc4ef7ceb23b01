"""Two echods behind a real HAProxy, with the files in ``deploy/haproxy`` as they are."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.integration.daemon import MODULE, PATIENCE, run, waitFor
from tests.integration.loaded import LoadedDaemon as Daemon
from tests.integration.namespaces import namespace, needsRoot

DEPLOY = Path(__file__).parents[2] / "deploy" / "haproxy"
BALANCER, ONE, TWO, CLIENT = "10.0.0.10", "10.0.0.11", "10.0.0.12", "10.0.0.99"
CLIENTS = 16

pytestmark = [
    needsRoot,
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("haproxy") is None, reason="there is no haproxy(8)"),
]


class HAProxy:
    """
    One that runs.

    :ivar lines: what it has said.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        self.lines.extend(line.rstrip("\n") for line in iter(self._process.stdout.readline, ""))

    def waitForLine(self, text: str, start: int) -> None:
        """A line with ``text``, from number ``start`` on."""
        waitFor(
            lambda: any(text in line for line in self.lines[start:]) or self._process.poll(), text
        )
        assert self._process.poll() is None, self.lines

    def end(self) -> None:
        """Kill it."""
        self._process.kill()
        self._process.wait()
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()


@contextmanager
def network() -> Iterator[list[str]]:
    """All machines in one."""
    addresses = (BALANCER, ONE, TWO, CLIENT)
    with namespace(*(f"ip addr add {each}/32 dev lo" for each in addresses)) as prefix:
        yield prefix


@contextmanager
def balanced(prefix: list[str]) -> Iterator[HAProxy]:
    """HAProxy, with the file that is deployed."""
    process = subprocess.Popen(
        [*prefix, "haproxy", "-db", "-f", str(DEPLOY / "haproxy.cfg")],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    haproxy = HAProxy(process)
    try:
        yield haproxy
    finally:
        haproxy.end()


def echod(prefix: list[str], folder: Path, address: str) -> Daemon:
    """One with the file that is deployed, at ``address``."""
    configuration = folder / f"{address}.toml"
    configuration.write_text((DEPLOY / "echod.toml").read_text().replace(ONE, address))
    return Daemon("--config", str(configuration), command=[*prefix, *MODULE])


@contextmanager
def load(prefix: list[str]) -> Iterator[subprocess.Popen[str]]:
    """Clients of the balancer's; closing standard input ends them, and they tell."""
    program = str(Path(__file__).with_name("roundtrips.py"))
    process = subprocess.Popen(
        [*prefix, sys.executable, program, BALANCER, "1234", str(CLIENTS)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def test_restartUnderLoad(tmp_path: Path) -> None:
    """
    O1: one is restarted, then the other, under load, and no client sees an error: new connections
    go elsewhere before anything changes, and those that exist are finished.
    """
    with ExitStack() as stack:
        prefix = stack.enter_context(network())
        running = {
            name: stack.enter_context(echod(prefix, tmp_path, address))
            for name, address in (("one", ONE), ("two", TWO))
        }
        haproxy = stack.enter_context(balanced(prefix))
        # The checks go to health, and no PROXY header is there for them to send.
        for protocol in ("raw", "line", "dns"):
            port = {"raw": 1234, "line": 1235, "dns": 1236}[protocol]
            arguments = ("check", "-p", protocol, f"tcp:{port}:host={BALANCER}")
            waitFor(
                lambda: run(*arguments, command=[*prefix, *MODULE]).returncode == 0,  # noqa: B023  # called at once
                f"{protocol} through HAProxy",
            )
        clients = stack.enter_context(load(prefix))
        for name, address in (("one", ONE), ("two", TWO)):
            old = running[name]
            waitFor(lambda: old.counters()["raw"]["open"] > 0, "clients")  # noqa: B023  # called at once
            start = len(haproxy.lines)
            old.signal()
            haproxy.waitForLine(f"Server raw/{name} is DOWN", start)
            assert old.process.poll() is None, "HAProxy must know before it ends"
            assert old.wait() == 0
            running[name] = stack.enter_context(echod(prefix, tmp_path, address))
            haproxy.waitForLine(f"Server raw/{name} is UP", start)
        for name in running:
            waitFor(lambda: running[name].counters()["raw"]["accepted"] > 0, "clients")  # noqa: B023  # called at once
        told, _ = clients.communicate("", timeout=PATIENCE)
        found = json.loads(told)
        assert found["failed"] == []
        assert found["brief"] > 100
        assert found["talks"] > 10
        for daemon in running.values():
            counters = daemon.counters()
            assert counters["raw"]["refused"] == {}
            assert set(counters["raw"]["closed"]) == {"eof"}
            assert set(counters["health"]["closed"]) <= {"quit", "eof"}


def test_clientIsKnown(tmp_path: Path) -> None:
    """P1: echod sees the client, not HAProxy; whoever comes without a header is nobody."""
    with ExitStack() as stack:
        prefix = stack.enter_context(network())
        configuration = tmp_path / "echod.toml"
        text = (DEPLOY / "echod.toml").read_text()
        configuration.write_text("log_connections = true\n" + text)
        command = [*prefix, *MODULE]
        daemon = stack.enter_context(Daemon("--config", str(configuration), command=command))
        stack.enter_context(balanced(prefix))
        waitFor(
            lambda: run("check", f"{BALANCER}:1234", command=command).returncode == 0,
            "an echo through HAProxy",
        )
        program = (
            "import socket\n"
            f"source, balancer = ({CLIENT!r}, 0), ({BALANCER!r}, 1234)\n"
            "with socket.create_connection(balancer, 20, source) as client:\n"
            "    client.sendall(b'x')\n"
            "    assert client.recv(1) == b'x'\n"
        )
        subprocess.run([*prefix, sys.executable, "-c", program], timeout=PATIENCE, check=True)
        assert f"opened raw tcp {ONE}:1234 (proxy) id=" in daemon.waitForLine(f" peer={CLIENT}:")
        assert run("check", f"{ONE}:1234", command=command).returncode == 4
        assert run("check", "--proxy", f"{ONE}:1234", command=command).returncode == 4
