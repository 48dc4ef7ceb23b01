"""`echod.daemon.options`: options in, a plan or one line on standard error out; in process."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from echod import __version__
from echod.config.conversion import convert
from echod.config.endpoints import Endpoint, TCPEndpoint
from echod.config.limits import Limits
from echod.daemon.options import Options
from echod.errors import ConfigurationError
from echod.protocols.line import LineOptions
from echod.protocols.prefixed import DNSOptions
from echod.protocols.raw import RawOptions
from echod.server.descriptors import RESERVED, RESERVED_EACH
from echod.server.plan import Plan
from echod.server.registry import BUILTIN

Capture = pytest.CaptureFixture[str]

KNOWN = ", ".join(sorted(maker.name for maker in BUILTIN))


@pytest.fixture(autouse=True)
def descriptorLimit() -> Iterator[None]:
    """Parsing raises the process's soft limit of descriptors: put it back."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def parse(*arguments: str) -> Plan:
    """The plan for ``arguments``."""
    options = Options()
    options.parseOptions(arguments)
    assert options.plan is not None
    return options.plan


def refused(capsys: Capture, *arguments: str) -> str:
    """What is said after ``echod: ``: one line on standard error alone, exit status 1."""
    with pytest.raises(SystemExit) as caught:
        Options().parseOptions(arguments)
    assert caught.value.code == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("echod: ")
    assert err.endswith("\n")
    assert len(err.splitlines()) == 1, err
    return err.removeprefix("echod: ").removesuffix("\n")


def answered(capsys: Capture, *arguments: str) -> list[str]:
    """What is printed on standard output by what exits 0 at once, line by line."""
    with pytest.raises(SystemExit) as caught:
        Options().parseOptions(arguments)
    assert caught.value.code in (0, None)
    out, err = capsys.readouterr()
    assert err == ""
    return out.splitlines()


def served(made: Plan) -> list[tuple[str, Endpoint]]:
    """Protocol and address of each listener."""
    return [(listener.maker.name, listener.endpoint) for listener in made.listeners]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A file with one listener."""
    path = tmp_path / "echod.toml"
    path.write_text(
        "drain_timeout = 3\n[defaults]\nidle_timeout = 4\nmax_age = 5\n"
        "[[listener]]\nprotocol = 'line'\nendpoint = 'tcp:7'\nidle_timeout = 6\n"
        "[listener.options]\nprefix = '> '\nquit = 'q'\n"
    )
    return path


# -- Listeners ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "host"),
    [((), "127.0.0.1"), (("--interface", "0.0.0.0"), "0.0.0.0"), (("--interface=::1",), "::1")],
)
def test_nothingAskedFor(arguments: tuple[str, ...], host: str) -> None:
    """Raw 1234, line 1235, dns 1236, on 127.0.0.1 or ``--interface``."""
    made = parse(*arguments)
    assert served(made) == [
        ("raw", TCPEndpoint(host, 1234)),
        ("line", TCPEndpoint(host, 1235)),
        ("dns", TCPEndpoint(host, 1236)),
    ]
    assert made.drainTimeout == 10.0
    assert made.logConnections is False


@pytest.mark.parametrize(
    ("arguments", "protocol", "endpoint"),
    [
        (("--port", "7"), "raw", TCPEndpoint("127.0.0.1", 7)),
        (("-p", "0"), "raw", TCPEndpoint("127.0.0.1", 0)),
        (("--line-port=7",), "line", TCPEndpoint("127.0.0.1", 7)),
        (("--dns-port", "7"), "dns", TCPEndpoint("127.0.0.1", 7)),
        (("--port", "tcp:7"), "raw", TCPEndpoint("127.0.0.1", 7)),
        (("--port", "tcp:7:interface=0.0.0.0"), "raw", TCPEndpoint("0.0.0.0", 7)),
        (("--line-port", r"tcp:7:interface=\:\:1"), "line", TCPEndpoint("::1", 7)),
        (("--port", "7", "--interface", "::1"), "raw", TCPEndpoint("::1", 7)),
        (("--dns-port", "tcp:7", "--interface", "10.0.0.1"), "dns", TCPEndpoint("10.0.0.1", 7)),
        (
            ("--port", "tcp:7:interface=0.0.0.0", "--interface", "::1"),
            "raw",
            TCPEndpoint("0.0.0.0", 7),
        ),
        (("--listen", "line=tcp:7"), "line", TCPEndpoint("127.0.0.1", 7)),
        (("-l", r"dns=tcp:7:interface=\:\:"), "dns", TCPEndpoint("::", 7)),
    ],
)
def test_oneListener(arguments: tuple[str, ...], protocol: str, endpoint: TCPEndpoint) -> None:
    """A port number or an endpoint; with one listener given, no default one."""
    assert served(parse(*arguments)) == [(protocol, endpoint)]


def test_manyListeners() -> None:
    """``--listen`` repeats and goes with the ports."""
    made = parse("-l", "raw=tcp:1", "--port", "2", "--listen=raw=tcp:3", "--dns-port", "4")
    listeners = [(listener.maker.name, listener.endpoint.port) for listener in made.listeners]  # type: ignore[union-attr]  # all of TCP
    assert sorted(listeners) == [
        ("dns", 4),
        ("raw", 1),
        ("raw", 2),
        ("raw", 3),
    ]


def test_aFile(config: Path) -> None:
    """The file's listeners, limits and timeouts."""
    for flag in ("--config", "-c"):
        made = parse(flag, str(config))
        assert served(made) == [("line", TCPEndpoint("127.0.0.1", 7))]
        (listener,) = made.listeners
        assert listener.options == LineOptions(prefix="> ", quit="q")
        assert listener.limits == Limits(idleTimeout=6.0, maxAge=5.0)
        assert made.drainTimeout == 3.0
    made = parse("-c", str(config), "--interface", "::1")
    assert served(made) == [("line", TCPEndpoint("::1", 7))]


@pytest.mark.parametrize("arguments", [("--port", "9"), ("--listen", "raw=tcp:9")])
def test_listenersReplaceTheFiles(config: Path, arguments: tuple[str, ...]) -> None:
    """Any listener given on the command line replaces all of the file; the rest stays."""
    made = parse("-c", str(config), *arguments)
    assert served(made) == [("raw", TCPEndpoint("127.0.0.1", 9))]
    assert made.listeners[0].options == RawOptions()
    assert made.listeners[0].limits == Limits(idleTimeout=4.0, maxAge=5.0)
    assert made.drainTimeout == 3.0


def test_aFileWithoutListeners(tmp_path: Path) -> None:
    """The default ones, with the file's limits."""
    path = tmp_path / "echod.toml"
    path.write_text("[defaults]\nidle_timeout = 4\n")
    made = parse("-c", str(path))
    assert len(made.listeners) == 3
    assert all(listener.limits.idleTimeout == 4.0 for listener in made.listeners)


# -- Values ---------------------------------------------------------------------------------


def test_protocolOptions(config: Path) -> None:
    """``--option`` repeats, and goes over the file's."""
    made = parse(
        *("--port", "0", "--line-port", "0", "--dns-port", "0"),
        *("-o", "line.prefix=Echo: ", "--option", "line.quit=a=b.c", "-o", "line.max_length=5"),
        *("-o", "dns.strict=true", "-o", "raw.quit=x", "-o", "raw.quit="),
    )
    options = {listener.maker.name: listener.options for listener in made.listeners}
    assert options["line"] == LineOptions(prefix="Echo: ", quit="a=b.c", maxLength=5)
    assert options["dns"] == DNSOptions(strict=True)
    assert options["raw"] == RawOptions(quit="")
    made = parse("-c", str(config), "-o", "line.prefix=")
    assert made.listeners[0].options == LineOptions(prefix="", quit="q")


def test_limitsThatAreLists(capsys: Capture) -> None:
    """A list is written with commas."""
    (listener,) = parse("--udp-port", "0", "--reflector-ports", "7,19").listeners
    assert listener.limits.reflectorPorts == [7, 19]
    networks = ["--allow", "10.0.0.0/8,::1", "--deny", "10.1.0.0/16", "--source-prefix", "24,64"]
    (listener,) = parse("--port", "0", *networks).listeners
    assert listener.limits.allow == ["10.0.0.0/8", "::1"]
    assert listener.limits.deny == ["10.1.0.0/16"]
    assert listener.limits.sourcePrefix == (24, 64)
    message = refused(capsys, "--deny=10.0.0.1/8")
    assert message.startswith("--deny '10.0.0.1/8': '10.0.0.1/8' is no network: ")
    assert message.endswith("has host bits set; write 10.0.0.0/8")
    assert "write one such as" in refused(capsys, "--allow=localhost")
    for bad in ("24", "33,64", "24,129", "1,2,3"):
        refused(capsys, f"--source-prefix={bad}")
    for bad in ("", "7,", "7;9", "70000", "-1", "x"):
        message = refused(capsys, f"--reflector-ports={bad}")
        assert message.startswith(f"--reflector-ports {bad!r}: Expected `int`")


LISTS = {"reflector_ports", "source_prefix", "allow", "deny"}
NUMBERS = [key for key in Limits.__struct_encode_fields__ if key not in LISTS]


@pytest.mark.parametrize("key", NUMBERS)
def test_everyLimitIsAnOption(capsys: Capture, key: str) -> None:
    """``--max-connections``, ``--idle-timeout`` and the like set ``[defaults]``."""
    option = "--" + key.replace("_", "-")
    for listener in parse(option, "17").listeners:
        expected: dict[str, Any] = {**listener.maker.defaults, key: 17}
        assert listener.limits == convert(expected, Limits)
    eighteen: dict[str, Any] = {key: 18}
    assert parse(f"{option}=18", "--port", "0").listeners[0].limits == convert(eighteen, Limits)
    for bad in ("", "x", "-1", "nan", "inf", "true", "1,5", "9" * 20):
        message = refused(capsys, f"{option}={bad}")
        assert message.startswith(f"{option} {bad!r}: ")
        assert "$" not in message


def test_limitsGoOverTheFilesDefaults(config: Path) -> None:
    """The listener's own key wins over both."""
    made = parse("-c", str(config), "--max-age", "50", "--idle-timeout", "40", "--backlog", "30")
    assert made.listeners[0].limits == Limits(idleTimeout=6.0, maxAge=50.0, backlog=30)


def test_maximumGivenIsExplicit(config: Path) -> None:
    """An explicit value is refused rather than shrunken."""
    assert parse("-c", str(config)).listeners[0].maximumPlace is None
    assert parse("-c", str(config), "--max-connections", "9").listeners[0].maximumPlace is not None


def test_drainTimeout(config: Path, capsys: Capture) -> None:
    """O1: in seconds, over the file's; bounded."""
    assert parse("--drain-timeout", "0").drainTimeout == 0.0
    assert parse("-c", str(config), "--drain-timeout", "2.5").drainTimeout == 2.5
    assert parse().drainDelay == 0.0
    assert parse("--drain-delay", "3").drainDelay == 3.0
    assert refused(capsys, "--drain-delay=-1").startswith("--drain-delay '-1': ")
    for bad in ("", "x", "-1", "nan", "inf", "1e400"):
        assert refused(capsys, f"--drain-timeout={bad}").startswith(f"--drain-timeout {bad!r}: ")


def test_logConnections(tmp_path: Path) -> None:
    """On by the flag or by the file."""
    assert parse("--log-connections").logConnections is True
    path = tmp_path / "echod.toml"
    path.write_text("log_connections = true\n")
    assert parse("-c", str(path)).logConnections is True


def test_theSoftLimitIsRaised() -> None:
    """Before the number of connections is fitted into it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard // 2, hard))
    parse()
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == hard


# -- Sockets that were passed ---------------------------------------------------------------


@pytest.fixture
def threePassed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The environment of a process with descriptor 3 passed, as ``x``; returns its names."""
    opened: list[int] = []
    while not opened or opened[-1] < 3:
        opened.append(os.open(os.devnull, os.O_RDONLY))
    values = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "x"}
    for key, value in values.items():
        monkeypatch.setenv(key, value)
    yield list(values)
    for number in opened:
        os.close(number)


def test_passedIsReadOnce(capsys: Capture, threePassed: list[str]) -> None:
    """Nobody who is started later takes the variables for its own."""
    message = refused(capsys, "--port", "7")
    assert message.startswith("no listener uses what was passed as descriptor 3 (x): ")
    assert not set(threePassed) & set(os.environ)
    assert served(parse("--port", "7")) == [("raw", TCPEndpoint("127.0.0.1", 7))]
    message = refused(capsys, "--port", "systemd:name=x")
    assert message == (
        "--port systemd:name=x: no socket was passed: LISTEN_PID is not set:"
        " start echod by its socket unit"
    )


@pytest.mark.parametrize("option", ["--check-config", "--help", "--version", "--list-protocols"])
def test_whatOnlyTellsTakesNothing(
    capsys: Capture, tmp_path: Path, threePassed: list[str], option: str
) -> None:
    """A file can be checked where nothing is passed, and nothing is lost where something is."""
    path = tmp_path / "echod.toml"
    path.write_text("[[listener]]\nprotocol = 'raw'\nendpoint = 'systemd:name=y'\n")
    lines = answered(capsys, "--config", str(path), option)
    assert set(threePassed) <= set(os.environ)
    if option == "--check-config":
        assert lines == ["would listen raw systemd y"]


# -- What exits 0 ---------------------------------------------------------------------------


def test_checkConfig(capsys: Capture, config: Path) -> None:
    """Read, report, exit 0."""
    assert answered(capsys, "--check-config") == [
        "would listen raw tcp 127.0.0.1:1234",
        "would listen line tcp 127.0.0.1:1235",
        "would listen dns tcp 127.0.0.1:1236",
    ]
    assert answered(capsys, "--check-config", "--config", str(config), "--interface", "::1") == [
        "would listen line tcp [::1]:7"
    ]


def test_checkConfigTellsTheNotes(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """A default that shrinks is one line."""
    hard = RESERVED + 3 * RESERVED_EACH + 3 * 105
    monkeypatch.setattr(resource, "getrlimit", lambda which: (hard, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda which, limits: None)
    lines = answered(capsys, "--check-config")
    assert lines[3:] == [
        f"note: max_connections is 100 a listener: the descriptor limit of {hard} holds no more"
    ]
    message = refused(capsys, "--check-config", "--max-connections", "101")
    assert message.startswith("--max-connections: max_connections of 303 in all does not fit")
    monkeypatch.undo()


def test_checkConfigRefuses(capsys: Capture, tmp_path: Path) -> None:
    """Exit 1 for what cannot be used."""
    path = tmp_path / "echod.toml"
    path.write_text("nope = 1\n")
    assert refused(capsys, "--check-config", "-c", str(path)).startswith(f"{path}: $: ")


def test_listProtocols(capsys: Capture) -> None:
    """What is installed."""
    lines = answered(capsys, "--list-protocols")
    named = [line.split()[0] for line in lines if not line.startswith(" ")]
    assert named == [maker.name for maker in BUILTIN]
    assert "    options.strict: bool = false" in "\n".join(lines)


def test_version(capsys: Capture) -> None:
    """echod's own, not Twisted's."""
    assert answered(capsys, "--version") == [f"echod {__version__}"]


def test_help(capsys: Capture) -> None:
    """Every option is told, each limit with its default."""
    text = "\n".join(answered(capsys, "--help"))
    names = ["port", "line-port", "dns-port", "interface", "config", "listen", "option"]
    names += ["check-config", "list-protocols", "log-connections", "drain-timeout", "version"]
    names += [key.replace("_", "-") for key in Limits.__struct_encode_fields__]
    for name in names:
        assert f"--{name}" in text
    words = " ".join(text.split())
    for field in msgspec.structs.fields(Limits):
        if isinstance(field.default, int | float):
            assert f"[{field.default:g}]" in words
    assert "127.0.0.1" in words
    assert "[default: None]" not in words


# -- What exits 1 ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--nonsense",), "option --nonsense not recognized"),
        (("-x",), "option -x not recognized"),
        (("--port",), "option --port requires argument"),
        (("--check-config=yes",), "option --check-config must not have an argument"),
        (("stray",), "'stray' is no option; see --help"),
        (("--port", "0", "stray", "other"), "'stray' is no option; see --help"),
        (("--listen", "raw"), "--listen 'raw': write PROTOCOL=ENDPOINT"),
        (("--listen", "=tcp:1"), "--listen '=tcp:1': write PROTOCOL=ENDPOINT"),
        (("--listen", "raw="), "--listen 'raw=': write PROTOCOL=ENDPOINT"),
        (("--option", "x"), "--option 'x': write PROTOCOL.KEY=VALUE"),
        (("--option", "line=x"), "--option 'line=x': write PROTOCOL.KEY=VALUE"),
        (("--option", "line.=x"), "--option 'line.=x': write PROTOCOL.KEY=VALUE"),
        (("--option", ".a=x"), "--option '.a=x': write PROTOCOL.KEY=VALUE"),
        (("--option", "line.a"), "--option 'line.a': write PROTOCOL.KEY=VALUE"),
        (
            ("--port", "0", "--option", "line.quit=x"),
            "--option line: no listener serves line; add one with --listen",
        ),
        (
            ("--option", "nope.quit=x"),
            f"--option nope: no protocol 'nope' (there are: {KNOWN})",
        ),
        (
            ("--option", "line.nope=x"),
            (
                "--option line: Object contains unknown field `nope`"
                " (there are: goodbye, max_length, prefix, quit)"
            ),
        ),
        (
            ("--option", "line.max_length=0"),
            "--option line.max_length: Expected `int` >= 1, not '0'",
        ),
        (("--option", "dns.strict=maybe"), "--option dns.strict: Expected `bool`, got `str`"),
        (
            ("--listen", "nope=tcp:1"),
            f"--listen nope=tcp:1: no protocol 'nope' (there are: {KNOWN})",
        ),
        (
            ("--max-connections", "0"),
            "--max-connections '0': Expected `int` >= 1",
        ),
        (("--config", "/"), "cannot read /: Is a directory"),
        (("--config", "/no/such"), "cannot read /no/such: No such file or directory"),
        (("--port", "caf\udce9"), r"argument 'caf\udce9' is not UTF-8"),
        (("--listen=raw=\udcff",), r"argument '--listen=raw=\udcff' is not UTF-8"),
        (("--config", "\udcff"), r"argument '\udcff' is not UTF-8"),
    ],
)
def test_wrongOptions(capsys: Capture, arguments: tuple[str, ...], message: str) -> None:
    """O3: one line, not twistd's whole usage."""
    assert refused(capsys, *arguments) == message


@pytest.mark.parametrize(
    ("arguments", "head"),
    [
        (("--port", "x"), "--port x: 'x' in 'tcp:x' is no port"),
        (("--port", ""), "--port : '' in 'tcp:' is no port"),
        (("--line-port", "70000"), "--line-port 70000: '70000' in 'tcp:70000' is no port"),
        (("--dns-port", "ssl:1"), "--dns-port ssl:1: cannot listen on 'ssl:1'"),
        (("--port", "-1"), "--port -1: '-1' in 'tcp:-1' is no port"),
        (("--listen", "raw=1"), "--listen raw=1: cannot listen on '1': write tcp:PORT"),
        (("--interface", "nowhere"), "--interface: 'nowhere'"),
        (("--interface", "nowhere", "--port", "1"), "--port 1: 'nowhere' in 'tcp:1' is no address"),
        (
            ("--listen", "raw=tcp:7", "--port", "7"),
            "--port 7: 127.0.0.1:7 is taken by --listen raw=tcp:7",
        ),
    ],
)
def test_wrongEndpoints(capsys: Capture, arguments: tuple[str, ...], head: str) -> None:
    """O3: the option is the place."""
    assert refused(capsys, *arguments).startswith(head)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--listen", "raw=tcp:1\n2"),
        ("--listen", "no\npe=tcp:1"),
        ("--port", "1\n2"),
        ("--option", "no\npe.k=v"),
        ("--option", "raw.no\npe=v"),
        ("--option", "raw\n"),
        ("--config", "/no\nsuch"),
        ("--non\nsense",),
        ("str\nay",),
        ("--idle-timeout", "1\n2"),
        ("--interface", "no\nwhere"),
    ],
    ids=repr,
)
def test_lineEndsInArguments(capsys: Capture, arguments: tuple[str, ...]) -> None:
    """O3: one line, whatever was given."""
    assert refused(capsys, *arguments)


def test_configurationThatWindowsHasSaved(capsys: Capture, tmp_path: Path) -> None:
    """O3: a byte order mark and CRLF are read; UTF-16 is refused by its name."""
    path = tmp_path / "echod.toml"
    text = '[[listener]]\r\nprotocol = "raw"\r\nendpoint = "tcp:0"\r\n# \u00fc\r\n'
    path.write_bytes(text.encode("utf-8-sig"))
    options = Options()
    options.parseOptions(["--config", str(path)])
    assert options.plan is not None
    assert len(options.plan.listeners) == 1
    for encoding in ("utf-16-le", "utf-16-be"):
        path.write_bytes(f"\ufeff{text}".encode(encoding))
        assert refused(capsys, "--config", str(path)) == (
            f"{path}: UTF-16, by its byte order mark: save it as UTF-8"
        )


def test_tooManyDigits(capsys: Capture) -> None:
    """O3: Python converts no more than 4 300 digits; no traceback all the same."""
    assert "is no port" in refused(capsys, "--port", "9" * 5000)


@pytest.mark.parametrize(
    ("text", "head"),
    [
        (b"nope", "not TOML: "),
        (b"a = '\xff'", "not UTF-8, at byte 5"),
        (b"a = " + b"9" * 5000, "not TOML: "),
        (b"a = " + b"[" * 5000, "not TOML: "),
        (b'"a\\nb" = 1', r"$: Object contains unknown field `a\nb` (there are: "),
        (b'[defaults]\n"\\u001b[31m" = 1', r"$.defaults: Object contains unknown field `\x1b[31m`"),
        (
            b'[[listener]]\nprotocol = "raw"\nendpoint = "tcp:1"\noptions = {"a\\nb" = 1}',
            r"$.listener[0].options: Object contains unknown field `a\nb` (there are: ",
        ),
        (b"nope = 1", "$: Object contains unknown field `nope`"),
        (b"[defaults]\nidle_timeout = nan", "$.defaults.idle_timeout: Expected `float`"),
        (b"[[listener]]", "$.listener[0]: Object missing required field"),
        (
            b"[[listener]]\nprotocol = 'nope'\nendpoint = 'tcp:1'",
            "$.listener[0].protocol: no protocol 'nope'",
        ),
        (
            (
                b"[[listener]]\nprotocol = 'raw'\nendpoint = 'tcp:1'\n"
                b"[[listener]]\nprotocol = 'line'\nendpoint = 'tcp:2'\noptions = {prefix = 1}"
            ),
            "$.listener[1].options.prefix: Expected `str`, got `int`",
        ),
        (
            (
                b"[[listener]]\nprotocol = 'raw'\nendpoint = 'tcp:7'\n"
                b"[[listener]]\nprotocol = 'line'\nendpoint = 'tcp:7'"
            ),
            "$.listener[1].endpoint: 127.0.0.1:7 is taken by $.listener[0]",
        ),
    ],
)
def test_wrongFiles(capsys: Capture, tmp_path: Path, text: bytes, head: str) -> None:
    """One line that names the file, the place and the mend."""
    path = tmp_path / "echod.toml"
    path.write_bytes(text)
    assert refused(capsys, "--config", str(path)).startswith(f"{path}: {head}")


def test_unreadableFile(capsys: Capture, tmp_path: Path) -> None:
    """O3: the system's reason."""
    path = tmp_path / "loop.toml"
    os.symlink(path, path)
    message = refused(capsys, "--config", str(path))
    assert message == f"cannot read {path}: Too many levels of symbolic links"


def test_aFileWithListenersStillHasItsFaults(capsys: Capture, tmp_path: Path) -> None:
    """A file is checked as a whole, also where its listeners are replaced."""
    path = tmp_path / "echod.toml"
    path.write_text("[[listener]]\nprotocol = 1\n")
    message = refused(capsys, "--config", str(path), "--port", "0")
    assert message.startswith(f"{path}: $.listener[0]")


@pytest.mark.parametrize("columns", ["x", "0", "1", "-5", ""])
def test_helpOfAnyWidth(monkeypatch: pytest.MonkeyPatch, capsys: Capture, columns: str) -> None:
    """``COLUMNS`` may be anything."""
    monkeypatch.setenv("COLUMNS", columns)
    assert len([line for line in answered(capsys, "--help") if line.lstrip().startswith("--")]) > 30


def test_fileThatCannotBeLookedAt(tmp_path: Path) -> None:
    """A reload whose file is out of reach is refused in words, as a start is."""
    path = tmp_path / "echod.toml"
    path.write_text('listener = [{protocol = "raw", endpoint = "tcp:0"}]')
    options = Options()
    options.parseOptions(["-c", str(path)])
    path.unlink()
    path.symlink_to("x" * 300)
    with pytest.raises(ConfigurationError, match=r"^cannot read .*: File name too long$"):
        options.makePlan()
    path.unlink()
    path.mkdir()
    with pytest.raises(ConfigurationError, match="is no file, and cannot be read again"):
        options.makePlan()


def test_folderThatIsGone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who starts in a folder that has been removed needs none for absolute paths."""
    path = tmp_path / "echod.toml"
    path.write_text('listener = [{protocol = "raw", endpoint = "tcp:0"}]')
    folder = tmp_path / "folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    assert len(parse("-c", str(path)).listeners) == 1


def test_admin() -> None:
    """Short for a listener of that protocol; a number is a port."""
    first, second, raw = parse(
        *("--admin", "8081", "--admin", "unix:/run/x:mode=600", "--interface", "0.0.0.0"),
        *("--port", "1", "--option", "admin.hosts=a,b"),
    ).listeners
    assert [listener.maker.name for listener in (first, second, raw)] == ["admin", "admin", "raw"]
    assert str(first.endpoint) == "tcp 127.0.0.1:8081"
    assert str(second.endpoint) == "unix /run/x"
    assert str(raw.endpoint) == "tcp 0.0.0.0:1"
    assert getattr(first.options, "hosts", None) == ["a", "b"]


def test_adminThatIsWrong(capsys: Capture) -> None:
    assert refused(capsys, "--admin", "x").startswith("--admin x: ")
    assert "no name of a host" in refused(capsys, "--admin", "0", "--option", "admin.hosts=a,")
    assert "datagrams" in refused(capsys, "--admin", "udp:1")
