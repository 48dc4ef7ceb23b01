"""
HAProxy, nginx and stunnel in front of a daemon, each in a process of its own.

`haproxy`, `nginx` and `stunnel` are for a ``with`` block; they are given a configuration for each
door that clients come to, and yield a `Proxy`, which knows the doors' ports.  The first two inherit
sockets that listen already, so that no port can be lost to anybody else, and a client that is early
waits in the queue; stunnel chooses its ports and prints them.

What goes wrong in one of them is in `Proxy.lines`.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.integration.daemon import PATIENCE, waitFor

__all__ = [
    "DOOR",
    "Proxy",
    "haproxy",
    "needsHAProxy",
    "needsNginx",
    "needsStunnel",
    "nginx",
    "stunnel",
]

#: Stands in a configuration for where clients come to.
DOOR = "DOOR"

#: Not everybody's PATH has the folders of daemons.
_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin"])
_haproxy = shutil.which("haproxy", path=_PATH)
_nginx = shutil.which("nginx", path=_PATH)
_stunnel = shutil.which("stunnel4", path=_PATH) or shutil.which("stunnel", path=_PATH)
#: Debian's nginx has what it does with streams in a file of its own.
_STREAMS = Path("/usr/lib/nginx/modules/ngx_stream_module.so")

needsHAProxy = pytest.mark.skipif(
    _haproxy is None, reason="haproxy is not installed (apt-get install haproxy)"
)
needsNginx = pytest.mark.skipif(
    _nginx is None or not _STREAMS.exists(),
    reason="nginx, or its streams, is not installed (apt-get install nginx libnginx-mod-stream)",
)
needsStunnel = pytest.mark.skipif(
    _stunnel is None, reason="stunnel is not installed (apt-get install stunnel4)"
)


class Proxy:
    """
    One that runs.

    :param command: what starts it in the foreground.
    :param folder: where it runs, and where it writes what it says.
    :param ready: part of the line by which it says that it serves.
    :param doors: listening sockets that it inherits, by the doors' names; they are closed here.
    :param environment: variables for it.
    :ivar addresses: where clients come to, by the doors' names, as Python has them.
    """

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        ready: str,
        doors: Mapping[str, socket.socket],
        environment: Mapping[str, str],
    ) -> None:
        self._log = folder / "log"
        self.addresses: dict[str, Any] = {name: door.getsockname() for name, door in doors.items()}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env={**os.environ, **environment},
                pass_fds=[door.fileno() for door in doors.values()],
            )
        for door in doors.values():
            door.close()
        try:
            waitFor(lambda: self._serves(ready), f"{ready!r} of {command[0]}")
        except BaseException:
            self.stop()
            raise

    def _serves(self, ready: str) -> bool:
        assert self._process.poll() is None, "it ended: " + " / ".join(self.lines)
        return any(ready in line for line in self.lines)

    @property
    def lines(self) -> list[str]:
        """What it has said so far."""
        return self._log.read_text(errors="replace").splitlines()

    def connect(self, door: str, source: str | None = None) -> socket.socket:
        """
        A blocking client.

        :param source: the address that it comes from, if not the system's choice.
        """
        address = self.addresses[door]
        if isinstance(address, str):
            client = socket.socket(socket.AF_UNIX)
            client.settimeout(PATIENCE)
            client.connect(address)
            return client
        return socket.create_connection(address[:2], PATIENCE, (source, 0) if source else None)

    def stop(self) -> None:
        """End it, and wait."""
        self._process.terminate()
        try:
            self._process.wait(PATIENCE)
        finally:
            self._process.kill()
            self._process.wait()


def _listen(path: Path | None, host: str = "127.0.0.1") -> socket.socket:
    if path is None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, 0), family=family, backlog=128)
    door = socket.socket(socket.AF_UNIX)
    door.bind(str(path))
    door.listen(128)
    return door


@contextlib.contextmanager
def _closed(doors: Mapping[str, socket.socket]) -> Iterator[None]:
    try:
        yield
    finally:
        for door in doors.values():
            door.close()


@contextlib.contextmanager
def _running(proxy: Proxy) -> Iterator[Proxy]:
    try:
        yield proxy
    finally:
        proxy.stop()


@contextlib.contextmanager
def haproxy(
    folder: Path,
    sections: Mapping[str, str],
    *,
    hosts: Mapping[str, str] | None = None,
) -> Iterator[Proxy]:
    """
    HAProxy in TCP mode.

    :param folder: exists, and is empty.
    :param sections: what ``listen`` has, by its name; `DOOR` is for ``bind``.
    :param hosts: other addresses than 127.0.0.1 for some doors, or ``unix``.
    """
    doors = {
        name: _listen(
            folder / f"{name}.sock" if (hosts or {}).get(name) == "unix" else None,
            (hosts or {}).get(name, "127.0.0.1"),
        )
        for name in sections
    }
    with _closed(doors):
        text = [
            "global",
            "  nbthread 1",
            "  log stdout format raw local0 info",
            "defaults",
            "  mode tcp",
            "  log global",
            "  option dontlognull",
            "  unique-id-format client-%cp",
            *(f"  timeout {name} {PATIENCE:.0f}s" for name in ("connect", "client", "server")),
        ]
        for name, section in sections.items():
            text += [f"listen {name}", section.replace(DOOR, f"fd@{doors[name].fileno()}")]
        (folder / "haproxy.cfg").write_text("\n".join(text) + "\n")
        command = [_haproxy or "haproxy", "-db", "-V", "-f", "haproxy.cfg"]
        proxy = Proxy(command, folder, "Using epoll", doors, {})
    with _running(proxy):
        yield proxy


@contextlib.contextmanager
def nginx(folder: Path, servers: Mapping[str, str]) -> Iterator[Proxy]:
    """
    nginx, of streams.

    :param servers: what ``server`` has, by a name for it, but for ``listen``.
    """
    doors = {name: _listen(None) for name in servers}
    with _closed(doors):
        text = [
            f"load_module {_STREAMS};",
            "daemon off; pid nginx.pid; error_log stderr notice;",
            "events {}",
            "stream {",
        ]
        for name, server in servers.items():
            port = doors[name].getsockname()[1]
            text.append(f"server {{ listen 127.0.0.1:{port}; {server} }}")
        (folder / "nginx.conf").write_text("\n".join([*text, "}\n"]))
        command = [_nginx or "nginx", "-p", str(folder), "-e", "stderr", "-c", "nginx.conf"]
        # So it is told of sockets by the nginx that it replaces (without a master it would crash).
        inherited = "".join(f"{door.fileno()};" for door in doors.values())
        proxy = Proxy(command, folder, "start worker process ", doors, {"NGINX": inherited})
    with _running(proxy):
        yield proxy


@contextlib.contextmanager
def stunnel(folder: Path, services: Mapping[str, str]) -> Iterator[Proxy]:
    """
    stunnel.

    :param services: what each has, by its name, but for ``accept``.
    """
    text = ["foreground = yes", "pid =", "syslog = no", "debug = info"]
    for name, service in services.items():
        text += [f"[{name}]", "accept = 127.0.0.1:0", service]
    (folder / "stunnel.conf").write_text("\n".join(text) + "\n")
    command = [_stunnel or "stunnel", "stunnel.conf"]
    with _running(Proxy(command, folder, "Accepting new connections", {}, {})) as proxy:
        for line in proxy.lines:
            found = re.search(r"Service \[(.+)\] .*bound to 127\.0\.0\.1:(\d+)$", line)
            if found:
                proxy.addresses[found[1]] = ("127.0.0.1", int(found[2]))
        yield proxy
