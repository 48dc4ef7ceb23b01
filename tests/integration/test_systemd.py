"""The units of deploy/systemd under a systemd that boots for them; figures are printed."""

from __future__ import annotations

import functools
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from echod.transports.resting import PAUSE
from tests.certificates import Certificates
from tests.integration.arrivals import Arrivals
from tests.integration.daemon import PATIENCE, exchange, receiveAll, waitFor
from tests.integration.machine import CHECKOUT, DEPLOY, CannotBoot, Machine
from tests.integration.peers import needs, noise, ping
from tests.integration.test_stop import undelivered

pytestmark = pytest.mark.slow

SERVICES = ("echod.service", "echod@.service", "echod-activated.service")
SOCKETS = ("echod-activated.socket", "echod-activated-udp.socket")
#: What the units run.
PROGRAM = "/opt/echod/bin/twistd -n --pidfile= echod"
#: What `systemd-analyze security` may say of each, in tenths.
EXPOSURE = {"echod.service": 12, "echod@.service": 12, "echod-activated.service": 5}

#: How often it is restarted and killed under load; CONTRIBUTING.md has the command for more.
RESTARTS, KILLS = map(int, os.environ.get("ECHOD_RESTARTS", "6,3").split(","))
#: New connections a second meanwhile; what is asked for, and what is aimed at.
LEAST, RATE = 150, 200


@pytest.fixture(scope="module")
def booted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    try:
        with Machine(tmp_path_factory.mktemp("machine")) as machine:
            machine.install()
            yield machine
    except CannotBoot as why:
        pytest.skip(f"no systemd of its own: {why}")


@pytest.fixture
def machine(booted: Machine) -> Iterator[Machine]:
    """With the units as they are shipped, none of them started."""
    booted.deploy()
    yield booted
    booted.withdraw()


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Say figures: they are printed at the run's end."""
    return functools.partial(record_property, "figure")


def pidOf(machine: Machine, unit: str) -> int:
    """The number, here, of a unit's main process."""
    return machine.outside(int(machine.show(unit, "MainPID")))


def statusOf(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def echoes(machine: Machine, port: int = 1234, data: bytes = b"hello") -> bool:
    return exchange(machine.connect(port), data) == data


# -- What is written in them -------------------------------------------------------------------


def sections(unit: str) -> Counter[str]:
    """The settings of a unit's file."""
    lines = (DEPLOY / unit).read_text().splitlines()
    return Counter(line for line in lines if "=" in line and not line.startswith("#"))


def test_oneSandbox() -> None:
    """What holds one service holds each; the activated one has less."""
    own, several, activated = (sections(unit) for unit in SERVICES)
    assert own - several == Counter(
        [
            "Description=Echo daemon",
            f"ExecStart={PROGRAM} --config /etc/echod/echod.toml --log-format journal",
            f"ExecReload={PROGRAM} --check-config --config /etc/echod/echod.toml",
            "RuntimeDirectory=echod",
        ]
    )
    assert set(several - own) == {
        "Description=Echo daemon %i",
        f"ExecStart={PROGRAM} --config /etc/echod/%i.toml --log-format journal",
        f"ExecReload={PROGRAM} --check-config --config /etc/echod/%i.toml",
        "RuntimeDirectory=echod-%i",
    }
    assert {setting.partition("=")[0] for setting in own - activated} == {
        *(
            "Description",
            "After",
            "ExecStart",
            "ExecReload",
            "RuntimeDirectory",
        ),
        *("RestrictAddressFamilies", "ExecStopPost", "WantedBy"),
    }


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize("unit", SERVICES)
def test_exposure(tmp_path: Path, unit: str, tls: bool) -> None:
    """At most 1.2 of 10 with ports of its own, 0.5 without; TLS changes nothing."""
    shutil.copy(DEPLOY / unit, tmp_path)
    if tls:
        (tmp_path / f"{unit}.d").mkdir()
        shutil.copy(DEPLOY / "tls.conf", tmp_path / f"{unit}.d")
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager"]
    done = subprocess.run(
        [*command, f"--threshold={EXPOSURE[unit]}", str(tmp_path / unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "✓ MemoryDenyWriteExecute=" in done.stdout


def test_verified(machine: Machine) -> None:
    """`systemd-analyze verify` finds nothing, with the additions too: no unknown key, no typo."""
    for unit in SERVICES[:2]:
        machine.change(unit, (DEPLOY / "low-ports.conf").read_text(), "low-ports")
    for unit in SERVICES:
        machine.change(unit, (DEPLOY / "tls.conf").read_text(), "tls")
    names = [unit.replace("@.", "@i.") for unit in (*SERVICES, *SOCKETS)]
    done = machine.run("systemd-analyze", "verify", "--recursive-errors=yes", *names, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    machine.change(SERVICES[0], "[Service]\nProtectEverything=yes\n")
    done = machine.run("systemd-analyze", "verify", "--recursive-errors=yes", names[0], check=False)
    assert (done.returncode, "ProtectEverything" in done.stderr) == (1, True)


def test_readme(booted: Machine) -> None:
    """The commands of its README, all but those that install, in their order."""
    text = (DEPLOY / "README.md").read_text()
    _, *blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    booted.withdraw()
    booted.forget()
    shutil.copytree(DEPLOY, booted.path("/src/deploy/systemd"))
    pem = booted.path("/etc/echod/echod.pem")
    try:
        for block in blocks:
            if "activated" in block:
                # One at a time has the port.
                booted.systemctl("disable", "--now", "echod")
            booted.run("sh", "-euc", f"cd /src\n{block}")
            if "enable --now echod\n" in block:
                pem.write_text("unused")
                assert echoes(booted)
                assert booted.systemctl("is-enabled", "echod") == "enabled"
        assert echoes(booted)
        assert echoes(booted, 2234)
        assert booted.systemctl("is-active", "echod-activated", "echod@lab") == "active\nactive"
        assert set(booted.systemctl("is-enabled", *SOCKETS).split()) == {"enabled"}
    finally:
        booted.run("systemctl", "disable", *SOCKETS, "echod", "echod@lab", check=False)
        booted.withdraw()
        shutil.rmtree(booted.path("/src"))


# -- What holds it -----------------------------------------------------------------------------


def started(machine: Machine, activated: bool) -> str:
    """Start one or the other; its name."""
    if not activated:
        machine.systemctl("start", "echod.service")
        return "echod.service"
    machine.systemctl("start", *SOCKETS)
    assert echoes(machine)
    return "echod-activated.service"


both = pytest.mark.parametrize("activated", [False, True], ids=["own", "activated"])


@both
def test_sandbox(machine: Machine, activated: bool) -> None:
    """Inside: no capability, no new privileges, a filter of system calls, and not root."""
    unit = started(machine, activated)
    assert echoes(machine, 1234, noise(65_537))
    pid = pidOf(machine, unit)
    status = statusOf(pid)
    for key in ("CapEff", "CapPrm", "CapBnd", "CapAmb"):
        assert int(status[key], 16) == 0
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    for key in ("Uid", "Gid"):
        assert all(61_184 <= int(number) <= 65_519 for number in status[key].split())
    networks = [os.readlink(f"/proc/{each}/ns/net") for each in (pid, machine.outside(1))]
    assert (networks[0] != networks[1]) == activated
    # Nothing has been refused that it would have said.
    entries = [json.loads(line) for line in machine.journal(unit, "json")]
    ours = {each["MESSAGE"]: each for each in entries if each["_PID"] != "1"}
    assert {each["SYSLOG_IDENTIFIER"] for each in ours.values()} == {"echod"}
    assert [line for line in ours if ours[line]["PRIORITY"] < "6" or "nable to" in line] == []
    # The time is the journal's, and so is the priority.
    assert "listening raw tcp 127.0.0.1:1234" in {line.partition(" (")[0] for line in ours}
    assert not [line for line in ours if line.startswith(("20", "<"))]


@needs("curl")
@both
def test_admin(machine: Machine, activated: bool) -> None:
    """Who is connected, over the UNIX socket: for root, and a group that the service is given."""
    unit = "echod-activated.service" if activated else "echod.service"
    machine.change(unit, "[Service]\nGroup=adm\n")
    started(machine, activated)
    path = f"/run/{unit.removesuffix('.service')}/admin.sock"

    def ask(target: str, *before: str, check: bool = True) -> str:
        command = ["curl", "-sS", "--unix-socket", path, f"http://localhost/{target}"]
        return machine.run(*before, *command, check=check).stdout

    assert ask("health") == "ready\n"
    assert machine.run("stat", "-c", "%a %G", path).stdout == "660 adm\n"
    with machine.connect(1234):
        rows = json.loads(ask("connections", "runuser", "-u", "nobody", "-g", "adm", "--"))
        assert "raw" in {row["protocol"] for row in rows["connections"]}
    assert ask("health", "runuser", "-u", "nobody", "--", check=False) == ""


def test_datagrams(machine: Machine) -> None:
    """The first datagram starts it, and is answered; it has the streams' socket too."""
    machine.systemctl("start", *SOCKETS)
    with machine.connect(1234, socket.SOCK_DGRAM) as client:
        client.send(b"first")
        assert client.recv(100) == b"first"
    assert echoes(machine)


@both
def test_tls(machine: Machine, certificates: Certificates, activated: bool) -> None:
    """
    A handshake and an echo with `MemoryDenyWriteExecute=`, with a key that is root's alone.

    With pyOpenSSL the service is "active" and every handshake fails.
    """
    name = "echod-activated" if activated else "echod"
    machine.change(f"{name}.service", (DEPLOY / "tls.conf").read_text(), "tls")
    pem = machine.path("/etc/echod/echod.pem")
    pem.touch(0o600)
    pem.write_bytes(Path(certificates.server).read_bytes())
    configuration = machine.path(f"/etc/echod/{'activated' if activated else 'echod'}.toml")
    word = "systemd:name=tcp" if activated else "tcp:1234"
    tls = f'[listener.tls]\ncert = "/run/credentials/{name}.service/echod.pem"\n'
    udp = '[[listener]]\nprotocol = "udp"\nendpoint = "systemd:name=udp"\n' if activated else ""
    configuration.write_text(
        f'[[listener]]\nprotocol = "raw"\nendpoint = "{word}"\n{tls}{udp}',
    )
    machine.systemctl("start", *(SOCKETS if activated else [f"{name}.service"]))
    data = noise(200_000)
    for version in ("1.2", "1.3"):
        context = certificates.context(version)
        with context.wrap_socket(machine.connect(1234), server_hostname="localhost") as client:
            ping(client, data)
            assert str(client.version()) == f"TLSv{version}"
            client.unwrap().close()
    assert machine.show(f"{name}.service", "MemoryDenyWriteExecute") == "yes"
    status = statusOf(pidOf(machine, f"{name}.service"))
    assert (status["Seccomp"], int(status["CapEff"], 16)) == ("2", 0)


def test_lowPorts(machine: Machine) -> None:
    """Ports below 1024 with one capability; without it, one line says that it may not."""
    configuration = machine.path("/etc/echod/echod.toml")
    configuration.write_text(configuration.read_text().replace("tcp:1234", "tcp:7"))
    done = machine.run("systemctl", "start", "echod.service", check=False)
    assert done.returncode == 1
    said = [line for line in machine.journal("echod.service") if line.startswith("echod: ")]
    assert said == ["echod: cannot listen on tcp 127.0.0.1:7: Permission denied"]
    machine.change("echod.service", (DEPLOY / "low-ports.conf").read_text(), "low-ports")
    machine.systemctl("start", "echod.service")
    assert echoes(machine, 7)
    status = statusOf(pidOf(machine, "echod.service"))
    for key in ("CapEff", "CapBnd", "CapAmb"):
        assert int(status[key], 16) == 1 << 10  # CAP_NET_BIND_SERVICE
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert "0" not in status["Uid"].split()


# -- Reload, several, files that are broken --------------------------------------------------------


@both
def test_reload(machine: Machine, activated: bool) -> None:
    """`systemctl reload` leaves process, connections and the unit's state as they were."""
    unit = started(machine, activated)
    before = machine.show(unit, "MainPID")
    with machine.connect(1234) as client:
        for turn in range(3):
            client.sendall(b"before")
            assert client.recv(100) == b"before"
            machine.systemctl("reload", unit)

            def reached(turn: int = turn) -> bool:
                return sum("SIGHUP" in line for line in machine.journal(unit)) > turn

            waitFor(reached, "the signal")
            # It is "reloading" from RELOADING=1 to READY=1.
            waitFor(lambda: machine.show(unit, "ActiveState") == "active", "READY=1")
            client.sendall(b"after")
            assert client.recv(100) == b"after"
    assert machine.show(unit, "MainPID") == before
    assert machine.show(unit, "NRestarts") == "0"


@both
def test_reloadOfABrokenFile(machine: Machine, activated: bool) -> None:
    """It fails, says why, and the daemon serves on as before."""
    unit = started(machine, activated)
    before = machine.show(unit, "MainPID")
    file = machine.path(f"/etc/echod/{'activated' if activated else 'echod'}.toml")
    good = file.read_text()
    file.write_text(f"nonsense = 1\n{good}")
    assert machine.run("systemctl", "reload", unit, check=False).returncode == 1
    assert (machine.show(unit, "ActiveState"), machine.show(unit, "MainPID")) == ("active", before)
    assert [line for line in machine.journal(unit) if "nonsense" in line]
    assert echoes(machine)
    file.write_text(good)
    machine.systemctl("reload", unit)


def test_lateAddress(machine: Machine) -> None:
    """An address that comes after the start: it is served, and nobody had to start anything."""
    file = machine.path("/etc/echod/echod.toml")
    file.write_text(file.read_text().replace("interface=127.0.0.1", "interface=192.0.2.9"))
    machine.systemctl("start", "--no-block", "echod.service")
    waitFor(
        lambda: any("tried again" in line for line in machine.journal("echod.service")), "a try"
    )
    assert machine.show("echod.service", "ActiveState") == "activating"
    machine.run("ip", "addr", "add", "192.0.2.9/32", "dev", "lo")
    try:
        waitFor(lambda: machine.show("echod.service", "ActiveState") == "active", "READY=1")
        assert machine.show("echod.service", "NRestarts") == "0"
    finally:
        machine.run("ip", "addr", "del", "192.0.2.9/32", "dev", "lo")


def test_startsThatFail(machine: Machine) -> None:
    """What may be well another time is tried once a second: 75, and no such program (203)."""
    file = machine.path("/etc/echod/echod.toml")
    file.write_text(file.read_text().replace("interface=127.0.0.1", "interface=192.0.2.9"))
    file.write_text(file.read_text().replace("bind_timeout = 30.0", "bind_timeout = 0.2"))
    for settings, status in (("", "75"), ("[Service]\nExecStart=\nExecStart=/nowhere\n", "203")):
        machine.change("echod.service", settings)
        machine.run("systemctl", "start", "echod.service", check=False)
        began = time.monotonic()

        def restarts() -> int:
            return int(machine.show("echod.service", "NRestarts"))

        enough = restarts() + 3
        waitFor(lambda: restarts() >= enough, "three more starts")  # noqa: B023  # at once
        assert time.monotonic() - began >= 2
        assert machine.show("echod.service", "ExecMainStatus") in (status, "0")
        machine.systemctl("stop", "echod.service")


def test_instances(machine: Machine) -> None:
    """Two with two files; a third whose file is broken fails, with one line that says why."""
    for name, port in (("one", 1301), ("two", 1302)):
        machine.path(f"/etc/echod/{name}.toml").write_text(
            f'[[listener]]\nprotocol = "raw"\nendpoint = "tcp:{port}"\n'
            f'[[listener]]\nprotocol = "health"\nendpoint = "unix:/run/echod-{name}/health"\n'
        )
    machine.systemctl("start", "echod@one", "echod@two")
    assert echoes(machine, 1301)
    assert echoes(machine, 1302)
    machine.path("/etc/echod/three.toml").write_text("drain_timeout = 'ten'\n")
    done = machine.run("systemctl", "start", "echod@three", check=False)
    assert done.returncode == 1
    assert machine.show("echod@three", "ActiveState") == "failed"
    assert machine.show("echod@three", "NRestarts") == "0"
    said = [line for line in machine.journal("echod@three") if "echod@three" not in line]
    assert said == ["echod: /etc/echod/three.toml: $.drain_timeout: Expected `float`, got `str`"]
    # The end of one is not felt by another.
    machine.systemctl("stop", "echod@one")
    assert not machine.path("/run/echod-one").exists()
    assert echoes(machine, 1302)
    assert machine.path("/run/echod-two/health").exists()
    with pytest.raises(ConnectionRefusedError):
        machine.connect(1301)


def test_brokenFileOfTheActivated(machine: Machine) -> None:
    """It is tried again once a second, not without end at full speed; then who waited is served."""
    file = machine.path("/etc/echod/activated.toml")
    good = file.read_text()
    file.write_text("nonsense = 1\n")
    machine.systemctl("start", *SOCKETS)
    unit = "echod-activated.service"
    with machine.connect(1234) as client:
        client.sendall(b"patience")
        client.shutdown(socket.SHUT_WR)

        def tries() -> list[float]:
            """When one of them had ended, and when the next began."""
            times = machine.journal(unit, "short-unix")
            return [
                float(line.split()[0])
                for line in times
                if "Main process exited" in line or "]: Starting " in line
            ]

        waitFor(lambda: len(tries()) >= 5, "a third try")
        _, ended, began, endedAgain, beganAgain, *_ = tries()
        assert min(began - ended, beganAgain - endedAgain) >= 1
        file.write_text(good)
        assert receiveAll(client) == b"patience"
    assert machine.systemctl("is-active", *SOCKETS) == "active\nactive"


# -- The watchdog --------------------------------------------------------------------------------

#: Seconds, in place of the 10 of the units.
WATCHDOG = 2.0

PLUGIN = """
import time
from echod.kit.makers import StreamMaker


async def _block(stream):
    await stream.read()
    time.sleep(3600)


blocking = StreamMaker("blocking", "holds the reactor", _block)
"""


def monotonic(machine: Machine, unit: str, key: str) -> float:
    """A property of a unit that is a time, in seconds of our monotonic clock."""
    return int(machine.show(unit, f"{key}Monotonic")) / 1e6


def startedAgain(machine: Machine, unit: str, call: Callable[[], float]) -> float:
    """
    Have ``call`` break a unit that runs; seconds until it was ready again, from what that returns.

    :raises AssertionError: that took a second more than `WATCHDOG`, and more than two of its
        starts, the slower one, take, which the machine may be too busy for.
    """

    def start() -> float:
        entered = monotonic(machine, unit, "ActiveEnterTimestamp")
        return entered - monotonic(machine, unit, "ExecMainStartTimestamp")

    first = machine.show(unit, "MainPID")
    starts = [start()]
    since = call()
    waitFor(
        lambda: (
            machine.show(unit, "MainPID") not in ("0", first)
            and machine.show(unit, "ActiveState") == "active"
        ),
        "another process",
    )
    took = monotonic(machine, unit, "ActiveEnterTimestamp") - since
    starts.append(start())
    assert 0 < took <= WATCHDOG + max(1.0, 2 * max(starts))
    return took


def test_blockedReactor(machine: Machine, tell: Callable[[str], None]) -> None:
    """A plugin that holds the reactor: noticed and restarted within WatchdogSec + 1 s."""
    package = machine.path("/opt/blocking/blocking-1.0.dist-info")
    package.mkdir(parents=True, exist_ok=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: blocking\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[echod.protocols]\nblocking = blocks:blocking\n")
    machine.path("/opt/blocking/blocks.py").write_text(PLUGIN)
    machine.path("/etc/echod/blocking.toml").write_text(
        '[[listener]]\nprotocol = "blocking"\nendpoint = "tcp:1300"\n'
        '[[listener]]\nprotocol = "raw"\nendpoint = "tcp:1301"\n'
    )
    unit = "echod@blocking.service"
    machine.change(
        unit, f"[Service]\nWatchdogSec={WATCHDOG}\nEnvironment=PYTHONPATH=/opt/blocking\n"
    )
    machine.systemctl("start", unit)
    with machine.connect(1300) as client:

        def block() -> float:
            client.sendall(b"x")
            return time.monotonic()

        took = startedAgain(machine, unit, block)
    tell(f"blocked reactor: serving again after {took:.2f} s, WatchdogSec={WATCHDOG}")
    assert echoes(machine, 1301)
    journal = machine.journal(unit)
    assert any("Watchdog timeout" in line for line in journal)
    # And where it was (PYTHONFAULTHANDLER).
    assert any("blocks.py" in line and "_block" in line for line in journal)


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_deafListener(machine: Machine, tell: Callable[[str], None]) -> None:
    """
    Faults of `epoll_ctl` that leave it deaf, its timers going on: within WatchdogSec + 1 s.

    It rests after a failing `accept`, and cannot be told of the listener again then.
    """
    unit = "echod.service"
    machine.change(unit, f"[Service]\nWatchdogSec={WATCHDOG}\n")
    machine.systemctl("start", unit)
    pid = pidOf(machine, unit)
    faults = ["inject=accept4:error=ENFILE:when=1", "inject=epoll_ctl:error=ENOMEM"]
    words = [word for fault in ["trace=accept4,epoll_ctl", *faults] for word in ("-e", fault)]
    tracer = subprocess.Popen(
        ["strace", "-f", "-p", str(pid), *words], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert tracer.stderr is not None
    try:
        waitFor(lambda: statusOf(pid)["TracerPid"] == str(tracer.pid), "the tracer")
        with ExitStack() as stack:

            def deafen() -> float:
                stack.enter_context(machine.connect(1234))
                return time.monotonic() + PAUSE

            took = startedAgain(machine, unit, deafen)
    finally:
        tracer.terminate()
        tracer.communicate()
    tell(f"deaf listener: serving again after {took:.2f} s, WatchdogSec={WATCHDOG}")
    assert echoes(machine)
    journal = machine.journal(unit)
    assert any("Watchdog timeout" in line for line in journal)
    (line,) = (line for line in journal if "not well" in line)
    assert line.endswith("not well: nobody is accepted at raw tcp 127.0.0.1:1234")


# -- Restarts and kills under load -------------------------------------------------------------


#: What a slow reader sends, as far as it is taken.
SLOWLY = noise(64 * 1024)


def slowReader(client: socket.socket) -> int:
    """Send and do not read; returns how many bytes are owed then, in the daemon's kernel."""
    client.setblocking(False)
    sent = 0
    with suppress(BlockingIOError):
        while sent < len(SLOWLY):
            sent += client.send(SLOWLY[sent : sent + 4096])
    client.settimeout(PATIENCE)
    return sent - undelivered(client)


def acceptedBy(machine: Machine, pid: int) -> int:
    """How many connections a process has accepted: those whose sockets are its."""
    sockets = set()
    for number in os.listdir(f"/proc/{pid}/fd"):
        match = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(f"/proc/{pid}/fd/{number}"))
        if match is not None:
            sockets.add(match[1])
    table = machine.path("/proc/1/net/tcp").read_text().splitlines()[1:]
    listening = "0A"
    return sum(fields[9] in sockets and fields[3] != listening for fields in map(str.split, table))


@pytest.mark.timeout(300)
def test_restartsAndKills(machine: Machine, tell: Callable[[str], None]) -> None:
    """
    Socket-activated, nobody is refused in a restart or a kill; a restart resets nobody.

    Every byte that a client had sent when the restart was asked for comes back to it; a kill costs
    those alone that were accepted.
    """
    unit = "echod-activated.service"
    # It is stopped while it is counted: on a busy machine that takes seconds.
    machine.change(unit, "[Service]\nWatchdogSec=120\n")
    machine.systemctl("start", *SOCKETS)
    restarts: list[float] = []
    kills: list[tuple[float, int]] = []
    with Arrivals(1234, machine.within, RATE, staying=20) as arrivals, ExitStack() as stack:

        def more(count: int = RATE // 4) -> None:
            wanted = arrivals.served() + count
            waitFor(lambda: arrivals.served() >= wanted, "more clients")
            # Who waits through several kills would count all of them as one.
            now = time.monotonic()
            waitFor(lambda: arrivals.allServed(now), "an echo for all")

        more()
        begun = time.monotonic()
        for _ in range(RESTARTS):
            readers = [
                stack.enter_context(machine.connect(1234, receiveBuffer=4096)) for _ in range(3)
            ]
            owed = [slowReader(client) for client in readers]
            at = time.monotonic()
            restarting = subprocess.Popen(machine.inside("systemctl", "restart", unit))
            for client, least in zip(readers, owed, strict=True):
                got = receiveAll(client)
                assert len(got) >= least > 0
                assert SLOWLY.startswith(got)
                client.close()
            assert restarting.wait(PATIENCE) == 0
            restarts.append(at)
            more()
        for _ in range(KILLS):
            pid = pidOf(machine, unit)
            at = time.monotonic()
            # Stopped, so that it accepts nobody else while they are counted.
            os.kill(pid, signal.SIGSTOP)

            def stopped(pid: int = pid) -> bool:
                return statusOf(pid)["State"].startswith("T")

            waitFor(stopped, "its stop")
            accepted = acceptedBy(machine, pid)
            os.kill(pid, signal.SIGKILL)
            kills.append((at, accepted))
            more()
        lasted = time.monotonic() - begun
    visits = arrivals.visits
    outcomes = Counter(visit.outcome for visit in visits)
    firstKill = kills[0][0] if kills else float("inf")
    calm = [visit for visit in visits if visit.ended < firstKill]
    waits = [
        max((wait for when, wait in arrivals.waits if at <= when < after), default=0.0)
        for at, after in itertools.pairwise([*restarts, *(at for at, _ in kills), float("inf")])
    ]
    rate = sum(visit.began >= begun for visit in visits) / lasted
    lost = [
        sum(visit.outcome in ("short", "reset") and at <= visit.ended < after for visit in visits)
        for at, after in itertools.pairwise([*(at for at, _ in kills), float("inf")])
    ]
    tell(
        f"{RESTARTS} restarts and {KILLS} kills in {lasted:.1f} s at {rate:.0f} connections/s:"
        f" {dict(outcomes)}, {sum(visit.got for visit in visits)} bytes right;"
        f" restarts cut off {sum(visit.outcome == 'short' for visit in calm)} with EOF;"
        f" kills cost {lost} of {[accepted for _, accepted in kills]} accepted;"
        f" longest wait in each restart"
        f" {[round(wait * 1000) for wait in waits[:RESTARTS]]} ms, in each kill"
        f" {[round(wait * 1000) for wait in waits[RESTARTS:]]} ms"
    )
    assert rate >= LEAST
    assert outcomes["refused"] == 0
    assert [visit for visit in calm if visit.outcome == "reset"] == []
    for at in restarts:
        for visit in visits:
            if visit.began < at <= visit.ended and visit.ended < firstKill:
                assert visit.got >= visit.sentBefore(at)
    for number, (_, accepted) in zip(lost, kills, strict=True):
        assert number <= accepted
    # Each restart and each kill was felt.
    assert sum(visit.outcome == "short" for visit in calm) >= RESTARTS
    assert machine.show(unit, "NRestarts") == str(KILLS)
    assert machine.systemctl("is-active", *SOCKETS) == "active\nactive"
    assert echoes(machine)


# -- The machine itself --------------------------------------------------------------------------


def leftovers(name: str) -> list[str]:
    """Control groups of a machine, and processes in them."""
    found = [str(path) for path in Path("/sys/fs/cgroup").glob(f"**/{name}")]
    for number in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            if name in Path(f"/proc/{number}/cgroup").read_text():
                found.append(number)
    return found


def test_leavesNothing(booted: Machine, tmp_path: Path) -> None:
    """A run that is killed takes its machine along; the next one removes what is left."""
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from tests.integration.machine import Machine\n"
        "with Machine(Path(sys.argv[1])):\n"
        "    os.kill(os.getpid(), int(sys.argv[2]))\n"
    )
    names = []
    for number in (signal.SIGKILL, 0):
        folder = tmp_path / str(number)
        folder.mkdir()
        command = [sys.executable, "-c", script, str(folder), str(int(number))]
        with subprocess.Popen(command, cwd=CHECKOUT) as run:
            names.append(f"echod-machine-{run.pid}")
        assert run.returncode == -number
        # The kernel ends them one after the other; their control groups are the next run's.
        waitFor(lambda: not [one for one in leftovers(names[-1]) if one.isdigit()], "their end")
        assert str(folder) not in Path("/proc/mounts").read_text()
    assert [leftovers(name) for name in names] == [[], []]
    assert booted.run("true").returncode == 0
