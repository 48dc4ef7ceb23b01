"""
The ``twistd echod`` command: options in, a service out.

Options parse and refuse, in one line on standard error with exit status 1; nothing is
built before `makeService`.  ``echod serve`` runs the same options.
"""

from __future__ import annotations

import atexit
import os
import shutil
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn, cast

import msgspec
from twisted.python import usage

from echod import __version__, startup
from echod.config.conversion import convert, listKeys, splitLists
from echod.config.limits import Limits
from echod.config.settings import Configuration, parseConfiguration
from echod.config.trusted_files import alsoBelieve, checkEncoding, readTrusted
from echod.daemon.log import Log
from echod.daemon.log_format import errorLine
from echod.daemon.process import Daemon
from echod.daemon.sd_notify import Notifier
from echod.daemon.signals import Signals, printEchodErrors, shedGroups, useMonotonicClock
from echod.daemon.supervision import Supervision
from echod.errors import ConfigurationError, EchodError, OutputFailed, oneLine
from echod.interfaces import IProcessReactor
from echod.output import writeError, writeOut
from echod.server.descriptors import raiseDescriptorLimit
from echod.server.plan import ListenerRequest, Plan, plan, requestsOf
from echod.server.registry import Registry, discover
from echod.server.service import EchodService
from echod.server.socket_activation import PassedSockets
from echod.wire.keys import keyOf

__all__ = ["Options", "makeService", "printProtocols"]

#: Columns that ``--help`` needs.
NARROWEST = 60
#: Options for a port alone: the protocol, and the kind of endpoint.
_PORTS = (
    ("port", "raw", "tcp"),
    ("line-port", "line", "tcp"),
    ("dns-port", "dns", "tcp"),
    ("udp-port", "udp", "udp"),
)
#: Limits that are lists, on the command line with commas.
_LISTS = listKeys(Limits)


def _option(name: str) -> str:
    return name.replace("_", "-")


def _keys(kind: type[msgspec.Struct]) -> Iterator[tuple[msgspec.structs.FieldInfo, str]]:
    """The keys that are options too, each with what it means: said once, where it is declared."""
    for field in msgspec.structs.fields(kind):
        # Any: as in `echod.config.conversion`.
        info: Any = msgspec.inspect.type_info(field.type)
        words = (getattr(info, "extra_json_schema", None) or {}).get("description")
        if words is not None:
            yield field, words


def _flags() -> list[list[str | None]]:
    """``--log-connections`` and the like."""
    return [
        [_option(field.encode_name), None, words]
        for field, words in _keys(Configuration)
        if isinstance(field.default, bool)
    ]


def _parameters(kind: type[msgspec.Struct]) -> list[list[str | None]]:
    """``--max-connections`` and the like."""
    parameters: list[list[str | None]] = []
    for field, words in _keys(kind):
        if not isinstance(field.default, bool):
            value = field.default
            shown = f"{value:g}" if isinstance(value, int | float) else value
            default = f" [{shown}]" if isinstance(shown, str) else ""
            parameters.append([_option(field.encode_name), None, None, f"{words}{default}"])
    return parameters


class Options(usage.Options):
    """
    The options of ``twistd echod`` and ``echod serve``.

    :ivar plan: what was asked for, checked; set by `postOptions`.
    """

    synopsis = "[echod options]"
    longdesc = (
        "An echo daemon: every byte that a client sends comes back, once, in order. With no"
        " option: raw echo on port 1234, line echo on 1235, length-prefixed (DNS) echo on"
        " 1236, all on 127.0.0.1; UDP on request. An endpoint is tcp:PORT[:interface=ADDRESS]"
        " or udp:PORT[:interface=ADDRESS] or tls:PORT[:interface=ADDRESS]:cert=FILE[:key=FILE]"
        " or unix:PATH[:mode=660], with a colon in a value as \\:. SIGTERM drains, SIGUSR1 logs"
        " the counters, SIGHUP reads the configuration and certificates again. A socket that"
        " was passed is fd:NUMBER, or systemd:name=NAME for all of that name."
    )

    optFlags = [
        *_flags(),
        ["check-config", None, "Read and check everything, say so, exit 0 or 1."],
        ["list-protocols", None, "Print the protocols with their options, and exit."],
    ]
    optParameters = [
        ["port", "p", None, "Serve raw echo on this port number or endpoint (0: any port)."],
        ["line-port", None, None, "Serve line echo on this port number or endpoint."],
        ["dns-port", None, None, "Serve length-prefixed echo on this port number or endpoint."],
        ["udp-port", None, None, "Serve UDP echo on this port number or endpoint."],
        ["interface", None, "127.0.0.1", "The address (or any) for whatever does not name one."],
        ["config", "c", None, "Read this TOML file. Listeners given here replace the file's."],
        *_parameters(Configuration),
        *_parameters(Limits),
    ]

    def __init__(self) -> None:
        super().__init__()
        # The options of `twistd`; written by it.
        # Any: Twisted's; it has no type there.
        self.parent: Any = None
        self.registry = discover()
        self.plan: Plan | None = None
        self._requests: list[ListenerRequest] = []
        self._protocolOptions: dict[str, dict[str, str]] = {}
        # Where relative paths begin.
        self._directory = ""
        self._passed: PassedSockets | None = None

    # -- Options that repeat -------------------------------------------------------------

    def opt_listen(self, value: str) -> None:
        """Serve PROTOCOL=ENDPOINT, as in line=tcp:1235:interface=0.0.0.0 (repeats)."""
        protocol, equals, endpoint = value.partition("=")
        if not (protocol and equals and endpoint):
            raise usage.UsageError(f"--listen {value!r}: write PROTOCOL=ENDPOINT")
        self._request(f"--listen {value}", protocol, endpoint)

    def opt_admin(self, value: str) -> None:
        """Serve admin at this port number of 127.0.0.1, or endpoint (repeats)."""
        endpoint = value if ":" in value else f"tcp:{value}"
        self._request(f"--admin {value}", "admin", endpoint)

    def opt_option(self, value: str) -> None:
        """Set a protocol's option, as in line.prefix='Echo: ' (repeats)."""
        name, equals, text = value.partition("=")
        protocol, dot, key = name.partition(".")
        if not (protocol and dot and key and equals):
            raise usage.UsageError(f"--option {value!r}: write PROTOCOL.KEY=VALUE")
        self._protocolOptions.setdefault(protocol, {})[key] = text

    opt_l = opt_listen
    opt_o = opt_option

    def opt_version(self) -> NoReturn:
        """Print echod's version and exit."""
        writeOut(f"echod {__version__}\n")
        raise SystemExit(0)

    def getUsage(self, width: int | None = None) -> str:
        """See ``usage.Options``, which fails where ``COLUMNS`` is no number, or a small one."""
        columns = shutil.get_terminal_size().columns if width is None else width
        return str(super().getUsage(max(columns, NARROWEST)))

    def opt_help(self) -> NoReturn:
        """Display this help and exit."""
        writeOut(f"{self}\n")
        raise SystemExit(0)

    # -- Parsing -------------------------------------------------------------------------

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """
        Parse, and check all that can be checked.

        :raises SystemExit: 1 after one line on standard error; 0 after ``--check-config``,
            ``--list-protocols``, ``--help`` and ``--version``, or `echod.output.FAILED` or
            ``NO_READER`` if what they say cannot be written.
        """
        arguments = sys.argv[1:] if options is None else list(options)
        try:
            if self.parent is not None and not startup.printsAlone(arguments):
                self._takeOver()
            _checkText(arguments)
            super().parseOptions(arguments)
        except OutputFailed as error:
            if str(error):
                writeError(f"echod: {error}")
            raise SystemExit(error.status) from error
        except (EchodError, usage.UsageError) as error:
            writeError(errorLine(oneLine(str(error)), self["log-format"]))
            raise SystemExit(1) from error

    def _takeOver(self) -> None:
        """Under `twistd`: the process is ours from here on."""
        taken = startup.taken()
        if taken and not self.parent.get("nodaemon", True):
            raise ConfigurationError(
                f"descriptors {taken} were closed as twistd started, and --reactor has taken them:"
                " redirect them, as in </dev/null, or leave --reactor out"
            )
        startup.begin()

    def parseArgs(self, *rest: str) -> None:
        """Refuse what is no option."""
        if rest:
            raise usage.UsageError(f"{rest[0]!r} is no option; see --help")

    def postOptions(self) -> None:
        """Make `plan` of what was given."""
        if self["list-protocols"]:
            printProtocols(self.registry)
            raise SystemExit(0)
        for option, protocol, kind in _PORTS:
            value = self[option]
            if value is not None:
                # A number is a port; anything else is an endpoint.
                endpoint = value if ":" in value else f"{kind}:{value}"
                self._request(f"--{option} {value}", protocol, endpoint)
        user = self.parent.get("uid") if self.parent else None  # `twist` has none
        if user is not None:
            # `twistd` becomes it; and a reload reads the files as that.
            alsoBelieve(user)
        # `twistd` may go elsewhere before the files are read again; and it need be nowhere.
        with suppress(OSError):
            self._directory = os.getcwd()  # noqa: PTH109  # text, as all paths here
        self._passed = (
            # A check of the file: what it is started with then, nobody knows now.
            None if self["check-config"] else PassedSockets.fromEnvironment(os.environ, os.getpid())
        )
        self.plan = self.makePlan()
        if self["check-config"]:
            for listener in self.plan.listeners:
                writeOut(f"would listen {listener.describe(listener.endpoint)}\n")
            for note in self.plan.notes:
                writeOut(f"note: {note}\n")
            raise SystemExit(0)

    def makePlan(self) -> Plan:
        """
        Read the file, if there is one, and check everything; also again, for a reload.

        :raises ConfigurationError: naming the place.
        """
        configuration = self._configuration()
        overrides = {
            field.encode_name: getattr(_fromText({field.encode_name: text}, Limits), field.name)
            for field in msgspec.structs.fields(Limits)
            if (text := self[_option(field.encode_name)]) is not None
        }
        interface = self["interface"]
        requests = self._requests or requestsOf(configuration, interface)
        try:
            return plan(
                configuration,
                requests,
                self.registry,
                raiseDescriptorLimit(),
                interface=interface,
                options=self._protocolOptions,
                overrides=overrides,
                passed=self._passed,
                byDefault=not self._requests and configuration.listener is None,
                directory=self._directory,
            )
        except ConfigurationError as error:
            raise self._inFile(error) from error

    def _request(self, place: str, protocol: str, endpoint: str) -> None:
        self._requests.append(ListenerRequest(place=place, protocol=protocol, endpoint=endpoint))

    def _configuration(self) -> Configuration:
        """The file's configuration, and over it what the command line says for all of it."""
        configuration = Configuration()
        if self["config"] is not None:
            try:
                configuration = parseConfiguration(self._read(self["config"]))
            except ConfigurationError as error:
                raise self._inFile(error) from error
        changes: dict[str, Any] = {}
        for name in ("drainDelay", "drainTimeout", "logFormat"):
            text = self[_option(keyOf(name))]
            if text is not None:
                changes[name] = getattr(_fromText({keyOf(name): text}, Configuration), name)
        if self["log-connections"]:
            changes["logConnections"] = True
        if self["log-payload"]:
            changes["logPayload"] = True
        return msgspec.structs.replace(configuration, **changes)

    def _read(self, name: str) -> str:
        """The text of the file of that ``name``."""
        path = Path(self._directory, name)
        # A pipe without a writer would hold up everybody.
        if self.plan is not None and _isNoFile(path):
            raise ConfigurationError(
                f"{name} is no file, and cannot be read again: name one, or restart"
            )
        data = readTrusted(str(path))
        checkEncoding(name, data)
        try:
            # Notepad and PowerShell begin theirs with a byte order mark.
            return data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ConfigurationError(f"{name}: not UTF-8, at byte {error.start}") from error

    def _inFile(self, error: ConfigurationError) -> ConfigurationError:
        """Name the file in an error about a place in it."""
        if str(error).startswith(("$", "not TOML")):
            return ConfigurationError(f"{self['config']}: {error}")
        return error


def printProtocols(registry: Registry) -> None:
    """
    Print every protocol with its options; what could not be loaded goes to standard error.

    :raises OutputFailed: standard output cannot be written.
    """
    writeOut(f"{registry.describe()}\n")
    for problem in registry.problems:
        writeError(f"echod: {problem}")


# Any: of whatever type the option is.
def _fromText(value: dict[str, str], kind: Any) -> Any:
    """Convert one option's text; the message names the option and the value."""
    ((key, text),) = value.items()
    try:
        return convert(splitLists(value, kind), kind, strict=False)
    except ConfigurationError as error:
        _, _, what = str(error).removesuffix(f", not {text!r}").partition(": ")
        raise ConfigurationError(f"--{_option(key)} {text!r}: {what}") from error


def _isNoFile(path: Path) -> bool:
    """Whether there is something else; what cannot be looked at cannot be read, and says why."""
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False


def _checkText(arguments: Sequence[str]) -> None:
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise ConfigurationError(f"argument {argument!r} is not UTF-8") from None


def makeService(options: Options) -> EchodService:
    """The service that ``options`` ask for, with the process's signals."""
    from twisted.internet import reactor as found

    # Every one that can watch descriptors is.
    reactor = cast("IProcessReactor", found)
    assert options.plan is not None
    printEchodErrors()
    useMonotonicClock(reactor)
    log = Log(lineFormat=options.plan.logFormat)
    service = Daemon(options.plan, reactor, log)
    atexit.register(service.end)
    supervision = Supervision(service, Notifier(os.environ), options.makePlan, reactor)
    reactor.callWhenRunning(shedGroups)
    reactor.callWhenRunning(Signals(service, supervision, reactor, log).install)
    reactor.callWhenRunning(supervision.begin)
    return service
