"""
A machine with a systemd of its own, in which the units of deploy/systemd run as on a server.

`Machine` boots it with systemd-nspawn (systemd 252 or later) in half a second, as root, with
nothing downloaded: its file system is an overlay over this machine's, in memory, and its network a
loopback alone.  `Machine.install` makes a virtual environment in /opt/echod of what the tests run
with, `Machine.deploy` puts the units and their files where they belong.

A run that is killed takes all of it along, but for empty control groups; the next run removes
those.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.integration.daemon import PATIENCE, idle, waitFor

__all__ = ["DEPLOY", "CannotBoot", "Machine"]

CHECKOUT = Path(__file__).parents[2]
#: What is shipped for systemd.
DEPLOY = CHECKOUT / "deploy" / "systemd"
#: The distribution.
NAME = "twisted-echod"

#: Where programs are that a machine needs: Debian's systemd-container, util-linux.
PROGRAMS = ("systemd-nspawn", "nsenter", "setpriv", "unshare")
#: Seconds until it must have booted.
BOOT = 30.0

# In a namespace of processes and one of mounts, so that all of them end with the first process; in
# control groups of its own, so that no other machine's systemd takes its units for leftovers.
_START = """
memory=$1 name=$2 python=$3; shift 3
for group; do echo $$ >"$group/cgroup.procs"; done
mkdir -p /run/systemd/nspawn
mount -t tmpfs tmpfs /run/systemd/nspawn
mount -t tmpfs -o mode=755 tmpfs "$memory"
mkdir "$memory/upper" "$memory/work" "$memory/root"
mount -t overlay -o "lowerdir=/,upperdir=$memory/upper,workdir=$memory/work" overlay "$memory/root"
cd "$memory/root"
: >etc/machine-id
rm -f etc/resolv.conf etc/systemd/system/default.target
mkdir -p opt/python
systemd-nspawn --quiet --directory=. --machine="$name" --register=no --keep-unit \
    --private-network --console=pipe --resolv-conf=off --timezone=off --link-journal=no \
    --bind-ro="$python:/opt/python" --boot systemd.unit=basic.target
"""
_NAME = "echod-machine-"
_CLONE_NEWNET = 0x40000000


class CannotBoot(Exception):
    """There is no way to boot one here; the message says why."""


class Machine:
    """
    See the module's docstring.  It runs until the ``with`` block ends.

    :param folder: an empty one for its memory and console.
    :raises CannotBoot: from the ``with``.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._name = f"{_NAME}{os.getpid()}"
        self._outermost: subprocess.Popen[bytes] | None = None
        self._groups: list[Path] = []
        self._leader = 0

    def __enter__(self) -> Machine:
        if os.geteuid() != 0:
            raise CannotBoot("only root can boot a machine")
        for program in PROGRAMS:
            if shutil.which(program) is None:
                raise CannotBoot(f"{program} is not installed")
        try:
            self._boot()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        if self._outermost is not None:
            # No orderly end: there is nothing to keep.
            self._outermost.kill()
            self._outermost.wait(PATIENCE)
        for group in self._groups:
            _empty(group)

    # -- What it does ----------------------------------------------------------------------

    def run(
        self, *command: str, check: bool = True, timeout: float = PATIENCE
    ) -> subprocess.CompletedProcess[str]:
        """
        Run a command in it, as its root; what it said, standard error apart.

        :raises AssertionError: it failed, and ``check`` is true.
        """
        done = subprocess.run(
            self.inside(*command),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
        )
        assert not check or done.returncode == 0, (command, done.stdout, done.stderr)
        return done

    def inside(self, *command: str) -> list[str]:
        """What runs a command in it, as its root."""
        return ["nsenter", f"--target={self._leader}", "--all", *command]

    def systemctl(self, *words: str) -> str:
        """What ``systemctl`` says; it must succeed."""
        return self.run("systemctl", *words).stdout.strip()

    def show(self, unit: str, key: str) -> str:
        """A property of a unit."""
        return self.systemctl("show", "--value", f"--property={key}", unit)

    def journal(self, unit: str, form: str = "cat") -> list[str]:
        """What a unit's processes, and systemd about it, have said since `forget`."""
        words = [f"--output={form}", "--no-pager", f"--unit={unit}", f"--since=@{self._since:.6f}"]
        return self.run("journalctl", *words).stdout.splitlines()

    def forget(self) -> None:
        """Let `journal` begin now."""
        self._since = time.time()

    def path(self, path: str) -> Path:
        """Where an absolute path of its is for us."""
        return Path(f"/proc/{self._leader}/root{path}")

    def within(self, call: Callable[[], Any]) -> Any:
        """What ``call`` returns in its network: sockets that are made there stay there."""
        results: list[Any] = []

        def enter() -> None:
            libc = ctypes.CDLL(None, use_errno=True)
            with open(f"/proc/{self._leader}/ns/net", "rb") as namespace:
                # Of this thread alone, which ends.
                assert libc.setns(namespace.fileno(), _CLONE_NEWNET) == 0, ctypes.get_errno()
            try:
                results.append((call(), None))
            except Exception as error:
                results.append((None, error))

        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        ((result, error),) = results
        if error is not None:
            raise error
        return result

    def connect(
        self,
        port: int,
        kind: socket.SocketKind = socket.SOCK_STREAM,
        *,
        receiveBuffer: int | None = None,
    ) -> socket.socket:
        """A client of its 127.0.0.1, with a deadline."""

        def connected() -> socket.socket:
            client = socket.socket(socket.AF_INET, kind)
            client.settimeout(PATIENCE)
            try:
                if receiveBuffer is not None:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receiveBuffer)
                client.connect(("127.0.0.1", port))
            except BaseException:
                client.close()
                raise
            return client

        found: socket.socket = self.within(connected)
        return found

    def outside(self, pid: int) -> int:
        """Our number of a process that is number ``pid`` in it."""
        ours = os.readlink(f"/proc/{self._leader}/ns/pid")
        for name in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{name}/ns/pid") != ours:
                    continue
                status = Path(f"/proc/{name}/status").read_text()
                (line,) = (one for one in status.splitlines() if one.startswith("NSpid:"))
                if line.split()[-1] == str(pid):
                    return int(name)
        raise AssertionError(f"no process {pid} in the machine")

    # -- What is on it -----------------------------------------------------------------------

    def install(self) -> None:
        """A virtual environment with echod in /opt/echod, as the README of deploy/ tells."""
        commands = self.path("/opt/echod/bin")
        version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
        packages = self.path(f"/opt/echod/lib/{version}/site-packages")
        commands.mkdir(parents=True)
        packages.mkdir(parents=True)
        # Ours may be in a place that nobody but root may look into.
        (commands / "python").symlink_to(f"/opt/python/bin/{version}")
        self.path("/opt/echod/pyvenv.cfg").write_text("home = /opt/python/bin\n")
        self.path("/etc/ld.so.conf.d/python.conf").write_text("/opt/python/lib\n")
        for needed in _closure(NAME):
            _copy(needed, packages)
        _copy(distribution(NAME), packages, ".dist-info")
        shutil.copytree(CHECKOUT / "echod", packages / "echod")
        shutil.copy2(CHECKOUT / "twisted_plugins/echod_plugin.py", packages / "twisted/plugins")
        twistd = commands / "twistd"
        twistd.write_text(
            "#!/opt/echod/bin/python\n"
            "from twisted.scripts.twistd import run\n"
            "raise SystemExit(run())\n"
        )
        twistd.chmod(0o755)
        self.run("ldconfig")
        self.run("/opt/echod/bin/python", "-m", "compileall", "-q", "/opt/echod/lib", timeout=120)
        self.run("/opt/echod/bin/twistd", "--help")

    def deploy(self) -> None:
        """The units and the files that they read; what was changed of them before is gone."""
        self.withdraw()
        self.path("/etc/echod").mkdir()
        for source in DEPLOY.iterdir():
            if source.suffix in (".service", ".socket"):
                shutil.copy(source, self.path("/etc/systemd/system"))
            elif source.suffix == ".toml":
                shutil.copy(source, self.path("/etc/echod"))
        self.systemctl("daemon-reload")
        self.forget()

    def withdraw(self) -> None:
        """Stop what `deploy` has brought, and remove it."""
        self.run("systemctl", "kill", "--signal=KILL", "echod*.service", check=False)
        self.run("systemctl", "stop", "echod*.socket", "echod*.service", check=False)
        for found in self.path("/etc/systemd/system").glob("echod*"):
            if found.is_dir():
                shutil.rmtree(found)
            else:
                found.unlink()
        shutil.rmtree(self.path("/etc/echod"), ignore_errors=True)
        self.systemctl("daemon-reload")
        self.run("systemctl", "reset-failed", check=False)

    def change(self, unit: str, text: str, name: str = "changed") -> None:
        """Add settings to a unit, as ``systemctl edit`` does."""
        folder = self.path(f"/etc/systemd/system/{unit}.d")
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.conf").write_text(text)
        self.systemctl("daemon-reload")

    # -- How it boots --------------------------------------------------------------------------

    def _boot(self) -> None:
        roots = _hierarchies()
        for root in roots:
            _sweep(root)
        try:
            for root in roots:
                (root / self._name).mkdir()
                self._groups.append(root / self._name)
        except OSError as error:
            raise CannotBoot(f"no control group of its own: {error}") from error
        memory = self._folder / "memory"
        memory.mkdir()
        console = self._folder / "console"
        with console.open("wb") as output:
            self._outermost = subprocess.Popen(
                [
                    # It dies with us, and everything else with it.
                    *("setpriv", "--pdeathsig=KILL"),
                    *("unshare", "--mount", "--pid", "--mount-proc", "--fork", "--kill-child"),
                    *("sh", "-euc", _START, "sh", str(memory), self._name, sys.base_prefix),
                    *map(str, self._groups),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        deadline = time.monotonic() + BOOT
        while not self._isUp():
            if self._outermost.poll() is not None or time.monotonic() > deadline:
                said = console.read_text(errors="replace").strip().splitlines()
                raise CannotBoot(f"it does not boot: {' / '.join(said[-3:]) or 'no word'}")
            idle(0.02, "each look starts a process")
        self.forget()

    def _isUp(self) -> bool:
        if not self._leader:
            for pid in _processes(self._groups[0]):
                with contextlib.suppress(OSError):
                    if Path(f"/proc/{pid}/comm").read_text() == "systemd\n":
                        self._leader = pid
                        break
            else:
                return False
        state = self.run("systemctl", "is-system-running", check=False).stdout
        return state.strip() in ("running", "degraded")


# -- What a virtual environment needs ------------------------------------------------------------


def _closure(name: str) -> list[Distribution]:
    """The distributions that one needs, without itself."""
    found: dict[str, Distribution] = {}
    waiting = [Requirement(name)]
    seen = set()
    while waiting:
        wanted = waiting.pop()
        key = (canonicalize_name(wanted.name), frozenset(wanted.extras))
        if key in seen:
            continue
        seen.add(key)
        found[key[0]] = distribution(wanted.name)
        for text in found[key[0]].requires or ():
            needed = Requirement(text)
            extras = [*wanted.extras, ""]
            if needed.marker is None or any(needed.marker.evaluate({"extra": e}) for e in extras):
                waiting.append(needed)
    del found[canonicalize_name(name)]
    return list(found.values())


def _copy(source: Distribution, packages: Path, within: str = "") -> None:
    """Copy its files; ``within`` is how the folder's name ends in which they are, if not all."""
    for file in source.files or ():
        if ".." in file.parts or not file.parts[0].endswith(within):
            continue  # a command, or something of an editable installation
        target = packages / file
        target.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # a compiled one that was removed
            shutil.copy2(file.locate(), target)


# -- Control groups ------------------------------------------------------------------------------


def _hierarchies() -> list[Path]:
    """Our own control groups in the hierarchies that a systemd uses."""
    mounts = {}
    for line in Path("/proc/mounts").read_text().splitlines():
        _, where, kind, options, *_ = line.split()
        if kind == "cgroup2":
            mounts[""] = where
        elif kind == "cgroup" and "name=systemd" in options.split(","):
            mounts["name=systemd"] = where
    found = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers in mounts:
            found.append(Path(mounts[controllers] + path))
    if not found:
        raise CannotBoot("there are no control groups of systemd's")
    return found


def _sweep(root: Path) -> None:
    """Remove what machines of processes that are gone have left."""
    for group in root.glob(f"{_NAME}*"):
        owner = group.name.removeprefix(_NAME)
        if not Path("/proc", owner).exists():
            _empty(group)


def _empty(group: Path) -> None:
    """Kill whatever is in a control group, and remove it."""

    def killed() -> bool:
        left = list(_processes(group))
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not left

    waitFor(killed, f"the end of all in {group}")
    for folder, _, _ in os.walk(group, topdown=False):
        with contextlib.suppress(FileNotFoundError):  # another run removes it as well
            os.rmdir(folder)


def _processes(group: Path) -> Iterator[int]:
    for folder, _, _ in os.walk(group):
        with contextlib.suppress(OSError):  # it is gone
            yield from map(int, Path(folder, "cgroup.procs").read_text().split())
