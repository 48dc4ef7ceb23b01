"""
What an operator may write, and what a daemon says to the rest: one line, exit status 1.

Everything here runs real processes, ``twistd`` and ``python -m echod`` side by side.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.daemon import (
    MODULE,
    PATIENCE,
    TWISTD,
    exchange,
    receiveAll,
    run,
    waitFor,
)
from tests.integration.loaded import LoadedDaemon as Daemon
from tests.integration.loaded import runLoaded
from tests.integration.peers import ping

#: The descriptor limit of this process: explicit maxima above it are refused.
_, HARD_LIMIT = resource.getrlimit(resource.RLIMIT_NOFILE)


def both(*arguments: str) -> list[subprocess.CompletedProcess[str]]:
    """Run ``twistd -n echod`` and ``python -m echod`` to their ends."""
    return [runLoaded(*arguments, command=command) for command in (TWISTD, MODULE)]


def checkRefusal(ended: subprocess.CompletedProcess[str]) -> str:
    """O3: exit status 1 and one printable line; returns what follows ``echod: ``."""
    assert ended.returncode == 1, ended
    assert ended.stdout == ""
    assert ended.stderr.endswith("\n")
    line = ended.stderr[:-1]
    assert line.isprintable(), "more than one line, or control characters"
    assert line.startswith("echod: ")
    return line.removeprefix("echod: ")


@pytest.fixture
def busyPort() -> Iterator[int]:
    """A port of 127.0.0.1 that somebody else listens on."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        yield holder.getsockname()[1]


# -- Broken files --------------------------------------------------------------------------


def listener(endpoint: str = "tcp:0", more: str = "", *, protocol: str = "raw") -> str:
    """A ``[[listener]]`` table; ``endpoint`` is written as a TOML literal string."""
    return f"[[listener]]\nprotocol = '{protocol}'\nendpoint = '{endpoint}'\n{more}\n"


def lineOptions(more: str) -> str:
    return listener(more=f"[listener.options]\n{more}", protocol="line")


#: Name, content, the place that the message must name.
BROKEN: list[tuple[str, str | bytes, str]] = [
    # The document.
    ("syntax", "drain_timeout = \n", "not TOML: "),
    ("unclosed string", "a = 'b\n", "not TOML: "),
    ("duplicate key", "drain_timeout = 1\ndrain_timeout = 2\n", "not TOML: "),
    ("duplicate table", "[defaults]\n[defaults]\n", "not TOML: "),
    ("JSON", '{"drain_timeout": 1}', "not TOML: "),
    ("a lone surrogate", r'a = "\ud800"', "not TOML: "),
    ("two byte order marks", 2 * b"\xef\xbb\xbf" + b"drain_timeout = 1\n", "not TOML: "),
    ("not UTF-8", b"# caf\xe9\n", "not UTF-8, at byte 5"),
    ("UTF-16", "drain_timeout = 1".encode("utf-16"), "UTF-16, by its byte order mark"),
    ("NUL bytes", b"\0\0\0\0", "not TOML: "),
    ("5000 digits", f"drain_timeout = {'9' * 5000}", ""),
    ("arrays in arrays", f"a = {'[' * 5000}{']' * 5000}", ""),
    # Keys.
    ("unknown top key", "drain = 1", "$: "),
    ("top key of a listener", "idle_timeout = 1", "$: "),
    ("control characters in a key", r'"a\nb\u001b[31m" = 1', "$: "),
    ("unknown defaults key", "[defaults]\nmax_conections = 1", "$.defaults: "),
    ("defaults key of a listener", "[defaults]\nprotocol = 'raw'", "$.defaults: "),
    ("unknown listener key", listener(more="port = 1"), "$.listener[0]: "),
    ("unknown key in the second", listener() + listener(more="port = 1"), "$.listener[1]: "),
    ("listener key of the top", listener(more="drain_timeout = 1"), "$.listener[0]: "),
    ("newline in a listener key", listener(more=r'"a\nb" = 1'), "$.listener[0]: "),
    ("unknown option", lineOptions("suffix = 'x'"), "$.listener[0].options: "),
    ("newline in an option", lineOptions(r'"a\nb" = 1'), "$.listener[0].options: "),
    (
        "option of another protocol",
        listener(more="[listener.options]\nprefix = 'x'"),
        "$.listener[0].options: ",
    ),
    # Types.
    ("text for seconds", "drain_timeout = '10'", "$.drain_timeout: "),
    ("date for seconds", "drain_timeout = 2026-01-01", "$.drain_timeout: "),
    ("boolean for seconds", "drain_timeout = true", "$.drain_timeout: "),
    ("integer for a flag", "log_connections = 1", "$.log_connections: "),
    ("text for a flag", "log_connections = 'yes'", "$.log_connections: "),
    (
        "boolean for a number",
        "[defaults]\nmax_connections = true",
        "$.defaults.max_connections: ",
    ),
    ("float for a number", "[defaults]\nbacklog = 10.0", "$.defaults.backlog: "),
    (
        "text for a number",
        listener(more="max_connections = '5'"),
        "$.listener[0].max_connections: ",
    ),
    ("array for a number", listener(more="keepalive = [1]"), "$.listener[0].keepalive: "),
    ("defaults not a table", "defaults = 3", "$.defaults: "),
    ("defaults an array of tables", "[[defaults]]\nbacklog = 1", "$.defaults: "),
    ("listener not an array", "[listener]\nprotocol = 'raw'\nendpoint = 'tcp:0'", "$.listener: "),
    ("listener a word", "listener = 'raw'", "$.listener: "),
    ("listener an array of words", "listener = ['raw']", "$.listener[0]: "),
    ("no listener in the array", "listener = []", "$.listener: "),
    (
        "protocol a number",
        "[[listener]]\nprotocol = 3\nendpoint = 'tcp:0'",
        "$.listener[0].protocol: ",
    ),
    (
        "endpoint a number",
        "[[listener]]\nprotocol = 'raw'\nendpoint = 1234",
        "$.listener[0].endpoint: ",
    ),
    ("options not a table", listener(more="options = 'prefix'"), "$.listener[0].options: "),
    ("option of a wrong type", lineOptions("prefix = 3"), "$.listener[0].options.prefix: "),
    (
        "option text for a flag",
        listener(more="[listener.options]\nstrict = 'no'", protocol="dns"),
        "$.listener[0].options.strict: ",
    ),
    # Values.
    ("nan", "drain_timeout = nan", "$.drain_timeout: "),
    ("inf", "drain_timeout = inf", "$.drain_timeout: "),
    ("nan in a listener", listener(more="idle_timeout = nan"), "$.listener[0].idle_timeout: "),
    ("negative seconds", "[defaults]\nstall_timeout = -0.5", "$.defaults.stall_timeout: "),
    (
        "negative maximum",
        "[defaults]\nmax_connections = -1",
        "$.defaults.max_connections: ",
    ),
    ("no connections", "[defaults]\nmax_connections = 0", "$.defaults.max_connections: "),
    ("no backlog", listener(more="backlog = 0"), "$.listener[0].backlog: "),
    ("backlog too big", listener(more="backlog = 65536"), "$.listener[0].backlog: "),
    ("keepalive too big", listener(more="keepalive = 40000"), "$.listener[0].keepalive: "),
    ("400 digits", f"[defaults]\nbacklog = {'9' * 400}", "$.defaults.backlog: "),
    (
        "maximum above the descriptor limit",
        f"[defaults]\nmax_connections = {min(HARD_LIMIT, 1_000_000)}",
        "",
    ),
    (
        "a listener's maximum above the descriptor limit",
        listener(more=f"max_connections = {min(HARD_LIMIT, 1_000_000)}"),
        "",
    ),
    # Protocols and endpoints.
    ("no protocol", "[[listener]]\nendpoint = 'tcp:0'", "$.listener[0]: "),
    ("no endpoint", "[[listener]]\nprotocol = 'raw'", "$.listener[0]: "),
    ("unknown protocol", listener(protocol="echo"), "$.listener[0].protocol: "),
    ("empty protocol", listener(protocol=""), "$.listener[0].protocol: "),
    ("ssl", listener("ssl:1234"), "$.listener[0].endpoint: "),
    ("unix", listener("unix:/run/echod.sock:mode=rw"), "$.listener[0].endpoint: "),
    ("haproxy", listener("haproxy:tcp:1234"), "$.listener[0].endpoint: "),
    ("udp", listener("udp:1234"), "$.listener[0].endpoint: "),
    ("stdio", listener("stdio:"), "$.listener[0].endpoint: "),
    ("empty endpoint", listener(""), "$.listener[0].endpoint: "),
    ("no port", listener("tcp"), "$.listener[0].endpoint: "),
    ("empty port", listener("tcp:"), "$.listener[0].endpoint: "),
    ("port 70000", listener("tcp:70000"), "$.listener[0].endpoint: "),
    ("port -1", listener("tcp:-1"), "$.listener[0].endpoint: "),
    ("port abc", listener("tcp:abc"), "$.listener[0].endpoint: "),
    ("port of 5000 digits", listener(f"tcp:{'9' * 5000}"), "$.listener[0].endpoint: "),
    ("two ports", listener("tcp:1:2"), "$.listener[0].endpoint: "),
    ("unknown endpoint key", listener("tcp:0:backlog=5"), "$.listener[0].endpoint: "),
    ("a host name", listener("tcp:0:interface=localhost"), "$.listener[0].endpoint: "),
    ("no interface", listener("tcp:0:interface="), "$.listener[0].endpoint: "),
    ("colons not escaped", listener("tcp:0:interface=::1"), "$.listener[0].endpoint: "),
    (
        "newline in an interface",
        (
            "[[listener]]\nprotocol = 'raw'\n"
            r'endpoint = "tcp:0:interface=fe80\\:\\:1%a\nb"'
        ),
        "$.listener[0].endpoint: ",
    ),
    ("one address twice", listener("tcp:1300") * 2, "$.listener[1].endpoint: "),
    (
        "one address in two spellings",
        listener(r"tcp:1300:interface=\:\:1") + listener(r"tcp:1300:interface=0\:\:1"),
        "$.listener[1].endpoint: ",
    ),
    # Options.
    ("newline in quit", lineOptions(r'quit = "bye\n"'), "$.listener[0].options.quit: "),
    (
        "newline in goodbye",
        lineOptions(r'goodbye = "a\r\nb"'),
        "$.listener[0].options.goodbye: ",
    ),
    ("long prefix", lineOptions(f"prefix = '{'x' * 257}'"), "$.listener[0].options.prefix: "),
    ("lines of 0 bytes", lineOptions("max_length = 0"), "$.listener[0].options.max_length: "),
    (
        "lines of 65537 bytes",
        lineOptions("max_length = 65537"),
        "$.listener[0].options.max_length: ",
    ),
    (
        "messages of 65536 bytes",
        listener(more="[listener.options]\nmax_length = 65536", protocol="dns"),
        "$.listener[0].options.max_length: ",
    ),
]


@pytest.mark.parametrize(
    ("content", "place"),
    [pytest.param(content, place, id=name) for name, content, place in BROKEN],
)
def test_brokenFile(tmp_path: Path, content: str | bytes, place: str) -> None:
    """O3: one line that names the file and the place; exit status 1; no traceback."""
    file = tmp_path / "broken.toml"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    said = checkRefusal(runLoaded("--config", str(file)))
    assert said.startswith(f"{file}: {place}")
    assert len(said) > len(f"{file}: ")


@pytest.mark.parametrize("name", ["syntax", "not UTF-8", "unknown option", "nan", "port 70000"])
def test_brokenFileForModule(tmp_path: Path, name: str) -> None:
    """O3: `python -m echod` says the very same."""
    ((content, place),) = [case[1:] for case in BROKEN if case[0] == name]
    file = tmp_path / "broken.toml"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    twistd, module = both("--config", str(file))
    assert checkRefusal(module) == checkRefusal(twistd)
    assert f"{file}: {place}" in module.stderr


def test_brokenFileNamesTheMend(tmp_path: Path) -> None:
    """The message lists the keys, the protocols or the shape that would be right."""
    file = tmp_path / "broken.toml"
    for content, mend in (
        (lineOptions("suffix = 'x'"), "goodbye, max_length, prefix, quit"),
        (listener(protocol="echo"), "line, netstring, raw"),
        (listener("ssl:1"), "tcp:PORT"),
        (listener("tcp:1300") * 2, "$.listener[0]"),
    ):
        file.write_text(content)
        assert mend in checkRefusal(runLoaded("--config", str(file), command=MODULE))


@pytest.mark.parametrize("name", ["missing.toml", ".", "missing\n\x1b[31m.toml"])
def test_unreadableFile(tmp_path: Path, name: str) -> None:
    """O3: a file that is not there, or no file, is named in one line."""
    path = str(tmp_path / name)
    for ended in both("--config", path):
        assert tmp_path.name in checkRefusal(ended)


def test_forbiddenFile(tmp_path: Path) -> None:
    """O3: a file that may not be read is named in one line."""
    file = tmp_path / "secret.toml"
    file.write_text("drain_timeout = 1")
    file.chmod(0)
    prefix: list[str] = []
    if os.access(file, os.R_OK):
        if not shutil.which("setpriv"):
            pytest.skip("root reads everything, and there is no setpriv(1)")
        prefix = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    ended = run("--config", str(file), command=[*prefix, *MODULE])
    assert checkRefusal(ended) == f"cannot read {file}: Permission denied"


# -- The command line ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--bogus"], "--bogus"),
        (["-x"], "-x"),
        (["1234"], "'1234'"),
        (["--port"], "--port"),
        (["--port", "abc"], "'abc'"),
        (["--port", ""], "--port"),
        (["--port", "70000"], "'70000'"),
        (["--port", "9" * 5000], "--port"),
        (["--port", "ssl:1"], "'ssl:1'"),
        (["--port", "0", "--interface", "localhost"], "'localhost'"),
        (["--port", "1300", "--line-port", "1300"], "127.0.0.1:1300"),
        (["--listen", "raw"], "PROTOCOL=ENDPOINT"),
        (["--listen", "=tcp:0"], "PROTOCOL=ENDPOINT"),
        (["--listen", "echo=tcp:0"], "line, netstring, raw"),
        (["--listen", "a\nb=tcp:0"], "--listen"),
        (["--option", "line.prefix"], "PROTOCOL.KEY=VALUE"),
        (["--option", "prefix=x"], "PROTOCOL.KEY=VALUE"),
        (["--option", "echo.prefix=x"], "'echo'"),
        (["--option", "line.suffix=x"], "suffix"),
        (["--option", "line.max_length=abc"], "max_length"),
        (["--option", "line.a\nb=1"], "line"),
        (["--port", "0", "--option", "line.prefix=x"], "--listen"),
        (["--max-connections", "0"], "--max-connections '0'"),
        (["--max-connections", "many"], "--max-connections 'many'"),
        (["--max-connections", str(min(HARD_LIMIT, 1_000_000))], "max_connections"),
        (["--backlog", "-1"], "--backlog '-1'"),
        (["--idle-timeout", "nan"], "--idle-timeout 'nan'"),
        (["--drain-timeout", "inf"], "--drain-timeout 'inf'"),
        (["--drain-timeout", "-1"], "--drain-timeout '-1'"),
        (["--check-config=1"], "check-config"),
        (["--a\nb"], "not recognized"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_wrongOption(arguments: list[str], says: str) -> None:
    """O3: one line that names the option and the value, not the whole usage."""
    assert says in checkRefusal(runLoaded(*arguments))


def test_optionNotText() -> None:
    """O3: an argument that is not UTF-8 is refused in one line."""
    command = [*MODULE, "--port=0", "--option"]
    ended = run(os.fsdecode(b"raw.quit=\xff"), command=command)
    assert "UTF-8" in checkRefusal(ended)


def test_listProtocols() -> None:
    """`--list-protocols` prints every protocol with its options, and exits 0."""
    for ended in both("--list-protocols"):
        assert (ended.returncode, ended.stderr) == (0, "")
        heads = [line.split()[0] for line in ended.stdout.splitlines() if line[0] != " "]
        assert heads[:3] == ["raw", "line", "dns"]
        assert {"chargen", "discard", "whoami"} <= set(heads)
        for option in ("quit", "prefix", "goodbye", "max_length", "strict"):
            assert f"    options.{option}: " in ended.stdout
        assert "    idle_timeout = 30.0" in ended.stdout


def test_help() -> None:
    """Every key of the file that stands for all listeners is an option."""
    for ended in both("--help"):
        assert (ended.returncode, ended.stderr) == (0, "")
        for option in (
            "port",
            "line-port",
            "dns-port",
            "listen",
            "option",
            "config",
            "drain-delay",
            "drain-timeout",
            "log-connections",
            "max-connections",
            "backlog",
            "idle-timeout",
            "stall-timeout",
            "linger-timeout",
            "max-age",
            "keepalive",
        ):
            assert f"--{option}" in ended.stdout


def test_checkConfig(tmp_path: Path, busyPort: int) -> None:
    """`--check-config` says what would listen, binds nothing and exits 0."""
    file = tmp_path / "echod.toml"
    file.write_text(listener(f"tcp:{busyPort}") + listener(r"tcp:0:interface=\:\:", protocol="dns"))
    for ended in both("--config", str(file), "--check-config"):
        assert (ended.returncode, ended.stderr) == (0, "")
        assert ended.stdout.splitlines() == [
            f"would listen raw tcp 127.0.0.1:{busyPort}",
            "would listen dns tcp [::]:0",
        ]


def test_checkConfigDefault() -> None:
    """With no option, raw, line and dns echo on 1234, 1235 and 1236 of 127.0.0.1."""
    for ended in both("--check-config"):
        assert (ended.returncode, ended.stderr) == (0, "")
        assert ended.stdout.splitlines() == [
            "would listen raw tcp 127.0.0.1:1234",
            "would listen line tcp 127.0.0.1:1235",
            "would listen dns tcp 127.0.0.1:1236",
        ]


def test_checkConfigOfBrokenFile(tmp_path: Path) -> None:
    """`--check-config` exits 1 where the daemon would."""
    file = tmp_path / "echod.toml"
    file.write_text(listener(protocol="echo"))
    for ended in both("--config", str(file), "--check-config"):
        assert checkRefusal(ended).startswith(f"{file}: $.listener[0].protocol: ")


# -- What a file does ----------------------------------------------------------------------

WHOLE = """
drain_timeout = 3
log_connections = true

[defaults]
max_connections = 20
backlog = 17
idle_timeout = 100
stall_timeout = 50.5
linger_timeout = 2
max_age = 3600
keepalive = 30

[[listener]]
protocol = "raw"
endpoint = "tcp:0"

[[listener]]
protocol = "line"
endpoint = 'tcp:0:interface=\\:\\:1'
max_connections = 30
backlog = 23
idle_timeout = 0
stall_timeout = 0
linger_timeout = 0
max_age = 0
keepalive = 0
[listener.options]
prefix = "Echo: "
quit = "quit"
goodbye = "Tschüs."
max_length = 10

[[listener]]
protocol = "dns"
endpoint = "tcp:port=0:interface=127.0.0.1"
[listener.options]
max_length = 512
strict = true
"""


def backlogOf(port: int) -> int:
    """What the kernel says of a listening socket's queue."""
    if not shutil.which("ss"):
        pytest.skip("only ss(8) tells a listening socket's backlog")
    words = subprocess.check_output(["ss", "-Hltn", f"sport = :{port}"], text=True).split()
    return int(words[2])


@pytest.mark.parametrize("command", [TWISTD, MODULE], ids=["twistd", "module"])
def test_wholeFile(tmp_path: Path, command: list[str]) -> None:
    """Every key there is, in the file and in a listener, is taken."""
    file = tmp_path / "echod.toml"
    file.write_text(WHOLE)
    with Daemon("--config", str(file), command=command) as daemon:
        listening = [line for line in daemon.lines if "listening " in line]
        assert re.search(r"listening raw tcp 127\.0\.0\.1:[1-9]\d*$", listening[0])
        assert re.search(r"listening line tcp \[::1\]:[1-9]\d*$", listening[1])
        assert re.search(r"listening dns tcp 127\.0\.0\.1:[1-9]\d*$", listening[2])
        assert len(listening) == 3
        assert backlogOf(daemon.ports["raw"]) == 17
        assert backlogOf(daemon.ports["line"]) == 23
        with socket.create_connection(("::1", daemon.ports["line"]), PATIENCE) as client:
            client.sendall(b"abc\nquit\n")
            assert receiveAll(client) == "Echo: abc\nTschüs.\n".encode()
        with socket.create_connection(("::1", daemon.ports["line"]), PATIENCE) as client:
            client.sendall(b"abc\n" + b"x" * 11 + b"\n")
            assert receiveAll(client) == b"Echo: abc\n"
        with daemon.connect("dns") as client:
            ping(client, b"\1\0" + b"x" * 256)
        assert exchange(daemon.connect("dns"), b"\2\1" + b"x" * 513) == b""
        daemon.waitForLine("reason=quit")
        assert daemon.stop() == 0


def test_commandLineReplacesListeners(tmp_path: Path, busyPort: int) -> None:
    """A listener on the command line replaces the file's; the rest of the file stays."""
    file = tmp_path / "echod.toml"
    file.write_text("log_connections = true\n" + listener(f"tcp:{busyPort}") + listener())
    with Daemon("--config", str(file), "--line-port", "0") as daemon:
        assert sum("listening " in line for line in daemon.lines) == 1
        assert list(daemon.ports) == ["line"]
        assert exchange(daemon.connect("line"), b"a\n") == b"a\n"
        daemon.waitForLine("opened line tcp")
        assert daemon.stop() == 0


def test_commandLineOptionsOverFile(tmp_path: Path) -> None:
    """`--option` stands over the file's own options, which stay otherwise."""
    file = tmp_path / "echod.toml"
    file.write_text(lineOptions("prefix = 'file: '\nquit = 'stop'"))
    with Daemon("--config", str(file), "--option", "line.prefix=> ") as daemon:
        with daemon.connect("line") as client:
            client.sendall(b"a\nstop\n")
            assert receiveAll(client) == b"> a\nBye.\n"
        assert daemon.stop() == 0


def test_interface(tmp_path: Path) -> None:
    """`--interface` says where, for whatever does not."""
    file = tmp_path / "echod.toml"
    file.write_text(listener() + listener("tcp:0:interface=127.0.0.1", protocol="line"))
    ended = runLoaded("--config", str(file), "--interface", "::1", "--check-config", command=MODULE)
    assert ended.stdout.splitlines() == [
        "would listen raw tcp [::1]:0",
        "would listen line tcp 127.0.0.1:0",
    ]


@pytest.mark.parametrize(
    ("defaults", "arguments"),
    [("idle_timeout = 0.3", []), ("idle_timeout = 90", ["--idle-timeout", "0.3"])],
    ids=["over the file's defaults", "over the command line"],
)
def test_ownKeyWins(tmp_path: Path, defaults: str, arguments: list[str]) -> None:
    """The listener's own key, then the command line, then the file's `[defaults]`."""
    file = tmp_path / "echod.toml"
    own = listener(more="idle_timeout = 60", protocol="line")
    file.write_text(f"[defaults]\n{defaults}\n{listener()}\n{own}")
    with (
        Daemon("--config", str(file), *arguments, command=MODULE) as daemon,
        daemon.connect("line") as own_,
        daemon.connect("raw") as other,
    ):
        assert receiveAll(other) == b""  # idle
        own_.sendall(b"still there\n")
        assert own_.recv(100) == b"still there\n"
        assert daemon.counters()["raw"]["closed"] in ({}, {"idle": 1})
        assert daemon.counters()["line"]["closed"] == {}


def test_protocolsOwnDefault(tmp_path: Path) -> None:
    """`dns` is idle after 30 s by default; `[defaults]` stands over that."""
    file = tmp_path / "echod.toml"
    file.write_text("[defaults]\nidle_timeout = 0.3\n" + listener(protocol="dns"))
    with Daemon("--config", str(file), command=MODULE) as daemon, daemon.connect("dns") as client:
        started = time.monotonic()
        assert receiveAll(client) == b""
        assert time.monotonic() - started < 5


# -- The descriptor limit ------------------------------------------------------------------


def limited(soft: int, hard: int) -> list[str]:
    if not shutil.which("prlimit"):
        pytest.skip("there is no prlimit(1)")
    return ["prlimit", f"--nofile={soft}:{hard}"]


def limitNotes(daemon: Daemon) -> list[str]:
    return [line for line in daemon.lines if "descriptor limit" in line]


def test_defaultShrinks() -> None:
    """O2: too low a descriptor limit lowers the default, says so once, and suffices."""
    command = [*limited(256, 256), *MODULE]
    with Daemon("--port", "0", command=command) as daemon:
        (note,) = limitNotes(daemon)
        match = re.search(r"max_connections is (\d+) a listener: .* limit of 256 ", note)
        assert match is not None
        maximum = int(match[1])
        assert 100 < maximum < 200
        clients = [daemon.connect() for _ in range(maximum)]
        for client in clients:
            client.sendall(b"x")
        assert [client.recv(10) for client in clients] == [b"x"] * maximum
        assert daemon.counters()["raw"]["refused"] == {}
        for client in clients:
            client.close()
        assert daemon.stop() == 0
        assert not [line for line in daemon.lines if "Traceback" in line or "#error" in line]


def test_defaultShrinksForAll() -> None:
    """Three listeners share what there is; one line says so."""
    command = [*limited(512, 512), *TWISTD]
    with Daemon("--port=0", "--line-port=0", "--dns-port=0", command=command) as daemon:
        assert len(limitNotes(daemon)) == 1
        assert daemon.stop() == 0


def test_checkConfigTellsShrinking() -> None:
    """`--check-config` says the same line."""
    ended = runLoaded("--check-config", command=[*limited(512, 512), *MODULE])
    assert (ended.returncode, ended.stderr) == (0, "")
    (note,) = [line for line in ended.stdout.splitlines() if "descriptor limit of 512" in line]
    assert note.startswith("note: max_connections is ")


def test_softLimitRaised() -> None:
    """The soft limit is raised to the hard one before anything is counted."""
    command = [*limited(256, HARD_LIMIT), *MODULE]
    with Daemon("--port", "0", command=command) as daemon:
        limits = Path(f"/proc/{daemon.pid}/limits").read_text()
        assert re.search(rf"Max open files\s+{HARD_LIMIT}\s+{HARD_LIMIT}\s", limits)
        assert bool(limitNotes(daemon)) == (HARD_LIMIT < 1200)


@pytest.mark.parametrize("where", ["option", "defaults", "listener"])
def test_explicitMaximumRefused(tmp_path: Path, where: str) -> None:
    """What somebody asked for is refused rather than lowered; the limit is named."""
    file = tmp_path / "echod.toml"
    key = "max_connections = 300"
    file.write_text(
        listener(more=key if where == "listener" else "")
        + (f"[defaults]\n{key}\n" if where == "defaults" else "")
    )
    arguments = ["--max-connections", "300"] if where == "option" else []
    command = [*limited(256, 256), *MODULE]
    said = checkRefusal(runLoaded("--config", str(file), *arguments, command=command))
    assert "max_connections" in said
    assert "256" in said


def test_explicitMaximumKept(tmp_path: Path) -> None:
    """Beside an explicit value only the defaults shrink."""
    file = tmp_path / "echod.toml"
    file.write_text(listener(more="max_connections = 150") + listener(protocol="line"))
    command = [*limited(400, 400), *MODULE]
    with Daemon("--config", str(file), command=command) as daemon:
        clients = [daemon.connect() for _ in range(150)]
        waitFor(lambda: daemon.counters()["raw"]["open"] == 150)
        assert daemon.counters()["raw"]["refused"] == {}
        assert len(limitNotes(daemon)) == 1
        for client in clients:
            client.close()
        assert daemon.stop() == 0


def test_hopelessLimit() -> None:
    """O3: a limit that leaves no connection is refused in one line."""
    ended = runLoaded("--port", "0", command=[*limited(90, 90), *MODULE])
    assert "limit of 90" in checkRefusal(ended)


# -- The default listeners -----------------------------------------------------------------

CLIENT = """
import socket, sys
for port, data in ((1234, b"abc"), (1235, b"abc\\n"), (1236, b"\\0\\3abc")):
    with socket.create_connection(("127.0.0.1", port), 10) as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        received = b""
        while piece := client.recv(100):
            received += piece
        assert received == data, (port, received)
print("echoed")
"""


def free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def test_defaultListeners() -> None:
    """With no option, three services on 127.0.0.1, ports 1234 to 1236, and no other."""
    inside: list[str] = []
    isolated = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    tools = all(map(shutil.which, ("unshare", "nsenter", "ip")))
    if tools and subprocess.run([*isolated, "true"], capture_output=True, check=False).returncode:
        tools = False
    if not tools:
        isolated = []
        if not all(map(free, (1234, 1235, 1236))):
            pytest.skip("no network namespace to be had, and the default ports are taken")
    with Daemon(command=[*isolated, *TWISTD]) as daemon:
        listening = [line.partition("listening ")[2] for line in daemon.lines]
        assert list(filter(None, listening)) == [
            "raw tcp 127.0.0.1:1234",
            "line tcp 127.0.0.1:1235",
            "dns tcp 127.0.0.1:1236",
        ]
        if isolated:
            inside = ["nsenter", f"--net=/proc/{daemon.pid}/ns/net"]
        ended = run("-c", CLIENT, command=[*inside, sys.executable])
        assert (ended.stdout, ended.stderr) == ("echoed\n", "")
        assert daemon.stop() == 0
