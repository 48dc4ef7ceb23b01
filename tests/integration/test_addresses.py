"""Where a daemon listens on machines that have no IPv6, little IPv4, or other TCP than TCP."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.integration.daemon import (
    MODULE,
    TWISTD,
    Daemonised,
    exchange,
    launch,
    outcome,
    run,
    waitFor,
)
from tests.integration.loaded import LoadedDaemon as Daemon
from tests.integration.loaded import runLoaded
from tests.integration.namespaces import namespace, needsRoot, withoutIPv6

DEPLOY = Path(__file__).parents[2] / "deploy"

everyCommand = pytest.mark.parametrize("command", [TWISTD, MODULE], ids=["twistd", "module"])
everyKind = pytest.mark.parametrize("kind", ["tcp", "udp"])


def listening(kind: str, port: int, interface: str) -> list[str]:
    """The option for a listener of a kind."""
    option = {"tcp": "--port", "udp": "--udp-port"}[kind]
    return [option, f"{kind}:{port}:interface={interface}"]


def answers(prefix: Sequence[str], *places: str) -> dict[str, int]:
    """What `check` finds at each of them, as its exit status."""
    command = [*prefix, *MODULE]
    return {place: run("check", place, command=command).returncode for place in places}


# -- No IPv6 ---------------------------------------------------------------------------------


@everyKind
@everyCommand
def test_noIPv6(command: list[str], kind: str) -> None:
    """O3: an address of IPv6 is refused in one line that says what to write; status 1."""
    ended = run(*listening(kind, 0, r"\:\:"), command=[*withoutIPv6(), *command])
    assert ended.returncode == 1
    assert ended.stderr == (
        f"echod: cannot listen on {kind} [::]:0: Address family not supported by protocol;"
        " there is no IPv6 here: name an address of IPv4, or interface=any\n"
    )
    assert "Traceback" not in ended.stdout


@everyKind
def test_noIPv6AsDaemon(tmp_path: Path, kind: str) -> None:
    """O3: nor in the background."""
    with Daemonised(tmp_path) as daemon:
        ended = daemon.start(*listening(kind, 0, r"\:\:"), before=withoutIPv6())
        assert ended.returncode == 1
        assert "Traceback" not in ended.stdout + ended.stderr
        assert any(f"cannot listen on {kind} [::]:0: " in line for line in daemon.lines)


def test_anyWithoutIPv6() -> None:
    """``interface=any`` is IPv4 there, and says so."""
    words = [*listening("tcp", 0, "any"), *listening("udp", 0, "any")]
    with Daemon(*words, command=[*withoutIPv6(), *MODULE]) as daemon:
        tcp, udp = daemon.ports["raw"], daemon.ports["udp/udp"]
        assert f"listening raw tcp 0.0.0.0:{tcp}" in daemon.waitForLine("listening raw")
        assert f"listening udp udp 0.0.0.0:{udp}" in daemon.waitForLine("listening udp")
        places = (f"tcp:{tcp}:interface=any", f"udp:{udp}")
        assert answers([], *places) == dict.fromkeys(places, 0)


# -- Both ------------------------------------------------------------------------------------


@needsRoot
@pytest.mark.parametrize("interface", [r"\:\:", "any"])
def test_bindv6only(interface: str) -> None:
    """``::`` has IPv4 too, whatever net.ipv6.bindv6only says; so has ``any``."""
    words = [*listening("tcp", 1234, interface), *listening("udp", 1234, interface)]
    places = [
        f"{kind}:1234:host={host}" for kind in ("tcp", "udp") for host in (r"\:\:1", "127.0.0.1")
    ]
    with (
        namespace("sysctl -qw net.ipv6.bindv6only=1") as prefix,
        Daemon(*words, command=[*prefix, *MODULE]) as daemon,
    ):
        daemon.waitForLine("listening raw tcp [::]:1234")
        daemon.waitForLine("listening udp udp [::]:1234")
        assert answers(prefix, *places) == dict.fromkeys(places, 0)


@needsRoot
def test_clientsOfAny() -> None:
    """Limits know a client over IPv4 by its IPv4 address, as elsewhere."""
    ask = "import socket; print(socket.create_connection(('127.0.0.1', 1234)%s).recv(99))"
    words = ["--listen", "whoami=tcp:1234:interface=any", "--deny", "127.0.0.2/32"]
    with namespace() as prefix, Daemon(*words, command=[*prefix, *MODULE]):
        client = [*prefix, *MODULE[:1], "-c"]
        assert "127.0.0.1" in run(ask % "", command=client).stdout
        denied = ask % ", source_address=('127.0.0.2', 0)"
        assert run(denied, command=client).stdout == "b''\n"


@everyKind
def test_anyIsKeptByAReload(tmp_path: Path, kind: str) -> None:
    """The same word is the same socket; other settings go on with it."""
    file = tmp_path / "echod.toml"
    protocol = {"tcp": "raw", "udp": "udp"}[kind]

    def write(limit: int) -> None:
        # A port of the system's choice: another socket would have another.
        file.write_text(
            f'[[listener]]\nprotocol = "{protocol}"\nendpoint = "{kind}:0:interface=any"\n'
            f"handshake_timeout = {limit}\n"
        )

    write(10)
    with Daemon("--config", str(file), command=MODULE) as daemon:
        port = daemon.ports[protocol if kind == "tcp" else "udp/udp"]
        for limit, what in ((10, "0 new, 0 changed"), (11, "0 new, 1 changed")):
            write(limit)
            start = len(daemon.lines)
            daemon.signal(signal.SIGHUP)
            new, changed = what.split(", ")
            line = daemon.waitForLine("reloaded: ", start)
            assert (
                f"{new.split()[0]} listeners are new, {changed.split()[0]} changed, 0 gone" in line
            )
            for host in ("127.0.0.1", r"\:\:1"):
                assert answers([], f"{kind}:{port}:host={host}") == {
                    f"{kind}:{port}:host={host}": 0
                }
        assert f"{kind} [::]:{port}" in daemon.allCounters()["listeners"][0]["listener"]


# -- IPv6 alone ------------------------------------------------------------------------------


def imageCommand() -> list[str]:
    """What the image runs."""
    text = (DEPLOY / "container/Containerfile").read_text()
    found = re.search(r"^CMD (\[.*\])$", text, re.MULTILINE)
    assert found is not None
    words: list[str] = json.loads(found[1])
    return words


def configMap(folder: Path) -> list[str]:
    """What a pod's configuration is."""
    text = (DEPLOY / "kubernetes/configmap.yaml").read_text()
    _, _, document = text.partition("echod.toml: |\n")
    file = folder / "echod.toml"
    file.write_text("\n".join(line[4:] for line in document.splitlines()))
    return ["--config", str(file)]


@needsRoot
@pytest.mark.parametrize("what", ["image", "manifests"])
def test_ipv6OnlyPod(tmp_path: Path, what: str) -> None:
    """In a pod whose only address is one of IPv6, it is reached there, with nothing changed."""
    words = imageCommand() if what == "image" else configMap(tmp_path)
    links = [
        "ip link add d0 type veth peer name d1",
        "ip link set d0 up",
        "ip link set d1 up",
        "ip -6 addr add 2001:db8::5/64 dev d0 nodad",
    ]
    places = [r"tcp:1234:host=2001\:db8\:\:5"]
    places += [r"udp:1234:host=2001\:db8\:\:5"] * (what == "manifests")
    with namespace(*links) as prefix, Daemon(*words, command=[*prefix, *MODULE]):
        assert answers(prefix, *places) == dict.fromkeys(places, 0)


# -- MPTCP -----------------------------------------------------------------------------------


def multipath(*address: object) -> socket.socket:
    """A listening socket of MPTCP; the test is skipped where there are none."""
    try:
        skt = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_MPTCP)
    except OSError as error:
        pytest.skip(f"no MPTCP: {error.strerror}")
    skt.bind(address)
    skt.listen()
    return skt


def test_passedMPTCP() -> None:
    """RFC 8684: what it has not of TCP's options is done without, with one line; it serves."""
    data = bytes(range(256)) * 4096
    with multipath("127.0.0.1", 0) as skt:
        port = skt.getsockname()[1]
        words = ["--port", f"fd:{skt.fileno()}"]
        with Daemon(*words, command=MODULE, descriptors=[skt.fileno()]) as daemon:
            for protocol in (socket.IPPROTO_TCP, socket.IPPROTO_MPTCP):
                client = socket.socket(socket.AF_INET, socket.SOCK_STREAM, protocol)
                client.connect(("127.0.0.1", port))
                assert exchange(client, data) == data
            assert daemon.stop() == 0
            assert sum("does without" in line for line in daemon.lines) <= 1
            assert not any("Traceback" in line for line in daemon.lines)


@everyCommand
@pytest.mark.parametrize("interface", ["127.0.0.1", "any"])
def test_mptcpize(command: list[str], interface: str) -> None:
    """``mptcpize run`` makes every socket of TCP one of MPTCP: the start does not end for that."""
    if shutil.which("mptcpize") is None:
        pytest.skip("there is no mptcpize(8)")
    multipath("127.0.0.1", 0).close()
    data = bytes(range(256)) * 4096
    with Daemon(*listening("tcp", 0, interface), command=["mptcpize", "run", *command]) as daemon:
        assert exchange(daemon.connect(), data) == data
        missing = [line for line in daemon.lines if "does without" in line]
        assert len(missing) <= 1
        assert all("SO_OOBINLINE" in line for line in missing)
        assert daemon.stop() == 0


# -- An address that comes later -------------------------------------------------------------

#: TEST-NET-1 (RFC 5737): nobody's.
NOWHERE = "192.0.2.7"


@everyKind
@everyCommand
def test_addressThatDoesNotCome(command: list[str], kind: str) -> None:
    """One line, and a status that says: try again."""
    words = [*listening(kind, 0, NOWHERE), "--bind-timeout", "0.3"]
    ended = runLoaded(*words, command=command)
    assert ended.returncode == 75
    assert ended.stderr == (
        f"echod: cannot listen on {kind} {NOWHERE}:0: Cannot assign requested address,"
        " for 0.3 s (bind_timeout)\n"
    )
    assert ended.stdout.count("tried again for 0.3 s") == 1


def test_addressThatDoesNotComeInTheBackground(tmp_path: Path) -> None:
    """`twistd` has forked by then: its own status is 1; nothing is left behind."""
    with Daemonised(tmp_path) as daemon:
        ended = daemon.start(*listening("tcp", 0, NOWHERE), "--bind-timeout", "0.3")
        assert ended.returncode == 1
        assert "(bind_timeout)" in ended.stderr
        assert daemon.processes() == []
        assert not (tmp_path / "twistd.pid").exists()


@needsRoot
@everyCommand
def test_addressThatComes(command: list[str]) -> None:
    """It is served as soon as it is there; who came to another listener has waited in its queue."""
    words = [*listening("tcp", 1234, NOWHERE), *listening("udp", 1234, NOWHERE)]
    words += ["--listen", "whoami=tcp:1235", "--bind-timeout", "60"]
    with namespace() as prefix:
        daemon = launch(*words, command=[*prefix, *command])
        try:
            assert daemon.stdout is not None
            waited = ""
            while f"udp {NOWHERE}:1234: Cannot assign requested address: tried again" not in waited:
                waited = daemon.stdout.readline()
                assert waited
            subprocess.run([*prefix, "ip", "addr", "add", f"{NOWHERE}/32", "dev", "lo"], check=True)
            for what in ("raw tcp", "udp udp"):
                assert f"listening {what} {NOWHERE}:1234" in daemon.stdout.readline()
            places = (f"tcp:1234:host={NOWHERE}", f"udp:1234:host={NOWHERE}")
            assert answers(prefix, *places) == dict.fromkeys(places, 0)
        finally:
            daemon.terminate()
            assert outcome(daemon).returncode == 0


@everyCommand
def test_stoppedWhileItWaits(command: list[str]) -> None:
    """SIGTERM ends the wait at once, as an orderly end."""
    daemon = launch(*listening("tcp", 0, NOWHERE), "--bind-timeout", "600", command=command)
    assert daemon.stdout is not None
    while "tried again" not in daemon.stdout.readline():
        assert daemon.poll() is None
    daemon.terminate()
    assert outcome(daemon).returncode == 0


@pytest.mark.parametrize("background", [False, True])
def test_stoppedWhileItWaitsTidiesUp(tmp_path: Path, background: bool) -> None:
    """`twistd` removes its pid file then; in the background whoever started it waits no more."""
    pid, log = tmp_path / "pid", tmp_path / "log"
    command = [TWISTD[0], *["-n"] * (not background), f"--pidfile={pid}", f"--logfile={log}"]
    words = ["echod", *listening("tcp", 0, NOWHERE), "--bind-timeout", "600"]
    daemon = launch(*words, command=command)
    waitFor(lambda: log.exists() and "tried again" in log.read_text(), "the wait")
    os.kill(int(pid.read_text()), signal.SIGTERM)
    ended = outcome(daemon)
    assert ended.returncode == (1 if background else 0)
    assert "Traceback" not in ended.stdout + ended.stderr
    assert not pid.exists()
