"""`echod.server.plan.plan`: a configuration checked as far as it can be without binding."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import pytest
from msgspec import Struct

from echod.config.endpoints import TCPEndpoint, UDPEndpoint
from echod.config.limits import Limits
from echod.config.settings import Configuration, parseConfiguration
from echod.connection.connection import Connection
from echod.errors import ConfigurationError
from echod.kit.makers import ConnectionMaker, DatagramMaker, FactoryMaker
from echod.protocols.line import LineOptions
from echod.protocols.prefixed import DNSOptions
from echod.protocols.raw import RawOptions
from echod.server.descriptors import RESERVED, RESERVED_EACH
from echod.server.plan import ListenerRequest, Plan, plan, requestsOf
from echod.server.registry import BUILTIN, Registry
from echod.server.service import EchodService
from echod.server.socket_activation import PassedSockets
from echod.transports.layers import ProxyLayer
from tests.unit.outer import Outer

PLENTY = 1_000_000

KNOWN = ", ".join(sorted(["small", *(maker.name for maker in BUILTIN)]))


class NoOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """No options."""


def _connection(settings: NoOptions) -> Connection:
    return Connection()


#: Prefers limits of its own, the number of connections too.
SMALL = ConnectionMaker(
    "small", "few", _connection, NoOptions, {"max_connections": 7, "backlog": 9, "max_age": 3.0}
)
REGISTRY = Registry([*BUILTIN, SMALL])


def ask(protocol: str = "raw", endpoint: str = "tcp:0", **more: Any) -> ListenerRequest:
    """A request at the place ``--listen``."""
    return ListenerRequest(place="--listen", protocol=protocol, endpoint=endpoint, **more)


def planOf(
    text: str,
    *,
    limit: int = PLENTY,
    interface: str = "127.0.0.1",
    options: Mapping[str, Mapping[str, str]] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Plan:
    """The plan for a file alone."""
    configuration = parseConfiguration(text)
    return plan(
        configuration,
        requestsOf(configuration, interface),
        REGISTRY,
        limit,
        interface=interface,
        options=options,
        overrides=overrides,
    )


def refused(
    *requests: ListenerRequest,
    configuration: Configuration | None = None,
    limit: int = PLENTY,
    options: Mapping[str, Mapping[str, str]] | None = None,
) -> str:
    """The message that refuses ``requests``: one line, always."""
    with pytest.raises(ConfigurationError) as caught:
        plan(configuration or Configuration(), requests, REGISTRY, limit, options=options)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def listener(endpoint: str, protocol: str = "raw", more: str = "") -> str:
    """One table of a file."""
    return f"[[listener]]\nprotocol = '{protocol}'\nendpoint = '{endpoint}'\n{more}\n"


# -- What is made of it ---------------------------------------------------------------------


@pytest.mark.parametrize("interface", ["127.0.0.1", "0.0.0.0", "::1"])
def test_nothingAskedFor(interface: str) -> None:
    """Raw on 1234, line on 1235, dns on 1236, on ``--interface``."""
    made = planOf("", interface=interface)
    assert [(each.maker.name, each.endpoint) for each in made.listeners] == [
        ("raw", TCPEndpoint(interface, 1234)),
        ("line", TCPEndpoint(interface, 1235)),
        ("dns", TCPEndpoint(interface, 1236)),
    ]
    assert [each.options for each in made.listeners] == [RawOptions(), LineOptions(), DNSOptions()]
    assert [each.maximumPlace is not None for each in made.listeners] == [False] * 3
    assert made.drainTimeout == 10.0
    assert made.logConnections is False
    assert list(made.notes) == []


def test_aFile() -> None:
    """Everything of a file arrives in the plan."""
    made = planOf(
        "drain_timeout = 3\nlog_connections = true\n"
        + listener("tcp:7", "line", "idle_timeout = 4\n[listener.options]\nprefix = '> '\n")
        + listener("tcp:8:interface=0.0.0.0", "dns"),
        interface="10.0.0.1",
    )
    first, second = made.listeners
    assert first.place == "$.listener[0]"
    assert first.endpoint == TCPEndpoint("10.0.0.1", 7)
    assert first.options == LineOptions(prefix="> ")
    assert first.limits == Limits(idleTimeout=4.0)
    assert second.place == "$.listener[1]"
    assert second.endpoint == TCPEndpoint("0.0.0.0", 8)
    assert second.options == DNSOptions()
    assert made.drainTimeout == 3.0
    assert made.logConnections is True


def test_layers() -> None:
    """Protocol < ``[defaults]`` < listener, key by key."""
    text = "[defaults]\nmax_age = 5\nkeepalive = 1\n" + listener("tcp:1", "small", "max_age = 8")
    text += listener("tcp:2", "small") + listener("tcp:3")
    own, defaults, other = (each.limits for each in planOf(text).listeners)
    assert own == Limits(maxConnections=7, backlog=9, maxAge=8.0, keepalive=1)
    assert defaults == Limits(maxConnections=7, backlog=9, maxAge=5.0, keepalive=1)
    assert other == Limits(maxAge=5.0, keepalive=1)


def test_overrides() -> None:
    """The command line's limits are over ``[defaults]``, under the listener's own."""
    text = "[defaults]\nmax_age = 5\nkeepalive = 1\n" + listener("tcp:1", "small", "max_age = 8")
    made = planOf(text + listener("tcp:2"), overrides={"max_age": 6.0, "backlog": 10})
    own, other = (each.limits for each in made.listeners)
    assert own == Limits(maxConnections=7, backlog=10, maxAge=8.0, keepalive=1)
    assert other == Limits(backlog=10, maxAge=6.0, keepalive=1)
    assert [each.maximumPlace is not None for each in made.listeners] == [True, False]
    made = planOf(text, overrides={"max_connections": 9})
    assert made.listeners[0].limits.maxConnections == 9
    assert made.listeners[0].maximumPlace is not None


@pytest.mark.parametrize(
    ("defaults", "own", "timeout"),
    [("", "", 30.0), ("idle_timeout = 5", "", 5.0), ("idle_timeout = 5", "idle_timeout = 0", 0.0)],
)
def test_dnsPrefersAnIdleTimeout(defaults: str, own: str, timeout: float) -> None:
    """RFC 7766 section 6.2.3: 30 s for dns, unless somebody says otherwise."""
    made = planOf(f"[defaults]\n{defaults}\n" + listener("tcp:1", "dns", own) + listener("tcp:2"))
    assert made.listeners[0].limits.idleTimeout == timeout
    assert made.listeners[1].limits.idleTimeout == (5.0 if defaults else 0.0)


@pytest.mark.parametrize(
    ("defaults", "own", "protocol", "explicit"),
    [
        ("", "", "raw", False),
        ("", "max_connections = 1000", "raw", True),
        ("max_connections = 1000", "", "raw", True),
        ("backlog = 5", "backlog = 6", "raw", False),
        ("", "", "small", True),
        ("max_connections = 5", "", "small", True),
    ],
)
def test_explicitMaximum(defaults: str, own: str, protocol: str, explicit: bool) -> None:
    """Whether somebody asked for just this number, be it the default's."""
    made = planOf(f"[defaults]\n{defaults}\n" + listener("tcp:1", protocol, own))
    assert (made.listeners[0].maximumPlace is not None) is explicit


# -- Options of the command line ------------------------------------------------------------


def test_optionsGoOverTheFiles() -> None:
    """``--option`` is laid over the listener's own options, for each listener of the protocol."""
    text = listener("tcp:1", "line", "[listener.options]\nprefix = 'a'\nquit = 'q'\n")
    text += listener("tcp:2", "line") + listener("tcp:3", "dns")
    made = planOf(text, options={"line": {"prefix": "5", "max_length": "100"}})
    assert [each.options for each in made.listeners] == [
        LineOptions(prefix="5", quit="q", maxLength=100),
        LineOptions(prefix="5", maxLength=100),
        DNSOptions(),
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"line": {"prefix": ""}},
            "--option line: no listener serves line; add one with --listen",
        ),
        (
            {"nope": {"a": "b"}},
            f"--option nope: no protocol 'nope' (there are: {KNOWN})",
        ),
        (
            {"raw": {"nope": "1"}},
            "--option raw: Object contains unknown field `nope` (there are: in_place, quit)",
        ),
        ({"raw": {"quit": "x" * 257}}, "--option raw.quit: Expected `str` of length <= 256"),
    ],
)
def test_refusedOptions(options: dict[str, dict[str, str]], message: str) -> None:
    """O3: an option for a protocol that nobody serves is a mistake, not nothing."""
    assert refused(ask("raw"), options=options) == message


def test_refusedNumbersInOptions() -> None:
    """O3: text that is no number, with its place."""
    message = refused(ask("dns"), options={"dns": {"max_length": "many"}})
    assert message == "--option dns.max_length: Expected `int`, got `str`"
    message = refused(ask("dns"), options={"dns": {"max_length": "65536"}})
    assert message == "--option dns.max_length: Expected `int` <= 65535, not '65536'"


# -- Sockets that were passed ---------------------------------------------------------------


@pytest.fixture
def sockets() -> Iterator[Callable[..., int]]:
    """Makes sockets to pass; returns each one's descriptor."""
    with ExitStack() as stack:

        def make(family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM) -> int:
            skt = stack.enter_context(socket.socket(family, kind))
            skt.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
            if kind == socket.SOCK_STREAM:
                skt.listen()
            return skt.fileno()

        yield make


def test_aListenerForEachSocket(sockets: Callable[..., int]) -> None:
    """Of one name there may be several; all get what is planned, and tell where."""
    four, six = sockets(), sockets(socket.AF_INET6)
    made = plan(
        Configuration(),
        [ask(endpoint="systemd:name=x", limits={"idle_timeout": 9.0}), ask(endpoint="tcp:7")],
        REGISTRY,
        PLENTY,
        passed=PassedSockets({"x": [four, six]}),
    )
    assert [each.descriptor for each in made.listeners] == [four, six, None]
    assert [each.limits.idleTimeout for each in made.listeners] == [9.0, 9.0, 0.0]
    endpoints: list[Any] = [each.endpoint for each in made.listeners]
    assert [endpoint.host for endpoint in endpoints] == ["127.0.0.1", "::1", "127.0.0.1"]
    first, second, _ = made.listeners
    assert first.describe(first.endpoint).endswith(f"127.0.0.1:{endpoints[0].port} (adopted)")
    shown = second.describe(second.endpoint, "no half-close")
    assert shown == f"raw tcp [::1]:{endpoints[1].port} (adopted, no half-close)"


def test_whatItIsDecides(sockets: Callable[..., int]) -> None:
    """Family and type are the socket's own; a protocol of the other kind is refused."""
    stream, datagrams = sockets(), sockets(kind=socket.SOCK_DGRAM)
    for name, number, kind in (("udp", stream, "streams"), ("raw", datagrams, "datagrams")):
        message = refused(ask(name, f"fd:{number}"))
        assert message.startswith(f"--listen: fd:{number} (descriptor {number}, ")
        assert message.endswith(f") is for {kind}, and protocol {name!r} is not; choose another")
    made = plan(
        Configuration(),
        [ask("discard", f"fd:{stream}"), ask("discard", f"fd:{datagrams}")],
        REGISTRY,
        PLENTY,
    )
    assert [type(each.endpoint) for each in made.listeners] == [TCPEndpoint, UDPEndpoint]


def test_twoListenersOnOneSocket(sockets: Callable[..., int]) -> None:
    """Refused, by number or by name."""
    number = sockets()
    passed = PassedSockets({"x": [number]})
    words = [f"fd:{number}", "systemd:name=x"]
    for one in words:
        for other in words:
            requests = [ask(endpoint=one), ask(endpoint=other)]
            with pytest.raises(ConfigurationError) as caught:
                plan(Configuration(), requests, REGISTRY, PLENTY, passed=passed)
            taken = f"--listen: fd {number} is taken by --listen; give it another"
            assert str(caught.value) == taken


def test_socketsThatNobodyUses(sockets: Callable[..., int]) -> None:
    """Whoever connects to one would wait for ever: refused, all of them named."""
    one, two, three = sockets(), sockets(), sockets()
    passed = PassedSockets({"x": [one, two], "y": [three]})
    with pytest.raises(ConfigurationError) as caught:
        plan(Configuration(), [ask(endpoint=f"fd:{two}")], REGISTRY, PLENTY, passed=passed)
    assert str(caught.value) == (
        f"no listener uses what was passed as descriptor {one} (x), {three} (y):"
        " add --listen PROTOCOL=systemd:name=NAME, or take it out of the socket unit"
    )
    plan(
        Configuration(),
        [ask(endpoint="systemd:name=x"), ask(endpoint=f"fd:{three}")],
        REGISTRY,
        PLENTY,
        passed=passed,
    )


def test_nobodyLooks() -> None:
    """A file can be checked where nothing is passed; what is wrong in it is still found."""
    requests = [ask(endpoint="systemd:name=x"), ask("udp", "fd:9")]
    made = plan(Configuration(), requests, REGISTRY, PLENTY, passed=None)
    assert [str(each.endpoint) for each in made.listeners] == ["systemd x", "fd 9"]
    for word, name in (("systemd:name=x", "systemd x"), ("fd:9", "fd 9")):
        with pytest.raises(ConfigurationError, match=f"{name} is taken by --listen; "):
            plan(Configuration(), [ask(endpoint=word)] * 2, REGISTRY, PLENTY, passed=None)


# -- What cannot work -----------------------------------------------------------------------


def test_twoListenersOnOneAddress() -> None:
    """Refused, with both places."""
    text = listener("tcp:7") + listener("tcp:8") + listener("tcp:7:interface=127.0.0.1", "line")
    with pytest.raises(ConfigurationError) as caught:
        planOf(text)
    assert str(caught.value) == (
        "$.listener[2].endpoint: 127.0.0.1:7 is taken by $.listener[0]; give it another"
    )


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        (r"tcp:7:interface=0.0.0.0", "tcp:7", True),
        ("tcp:7", r"tcp:7:interface=0.0.0.0", True),
        (r"tcp:7:interface=\:\:", "tcp:7", True),
        (r"tcp:7:interface=\:\:", r"tcp:7:interface=0.0.0.0", True),
        (r"tcp:7:interface=0.0.0.0", r"tcp:7:interface=\:\:1", False),
        (r"tcp:7:interface=0.0.0.0", "tcp:8", False),
        (r"tcp:0:interface=0.0.0.0", "tcp:0", False),
        (r"tcp:7:interface=0.0.0.0", "unix:/run/x", False),
    ],
)
def test_addressesThatOverlap(one: str, other: str, overlap: bool) -> None:
    """O3: one at all addresses takes in the others; the system would only say "in use"."""
    requests = [ask(endpoint=one), ask(endpoint=other)]
    if overlap:
        assert re.fullmatch(
            r"--listen: \S+:7 and \S+:7 overlap: see --listen; give it another", refused(*requests)
        )
    else:
        assert len(plan(Configuration(), requests, REGISTRY, PLENTY).listeners) == 2


def test_streamsAndDatagramsDoNotOverlap() -> None:
    """Each kind has ports of its own."""
    requests = [ask(endpoint="tcp:7:interface=0.0.0.0"), ask("udp", "udp:7")]
    assert len(plan(Configuration(), requests, REGISTRY, PLENTY).listeners) == 2


@pytest.mark.parametrize(
    "key", ["allow = ['::/0']", "deny = ['::/0']", "max_per_source = 1", "new_per_second = 1"]
)
def test_sourcesOfAUNIXSocket(key: str) -> None:
    """What would do nothing is refused, unless a proxy tells of clients; defaults may stand."""
    text = listener("unix:/run/x") + key + "\n"
    with pytest.raises(ConfigurationError) as caught:
        planOf(text)
    assert str(caught.value) == (
        f"$.listener[0].{key.split(maxsplit=1)[0]}: clients of unix:/run/x have no address;"
        " the mode of its file says who may come"
    )
    assert planOf(f"{text}proxy = []\n").listeners[0].layer(ProxyLayer) is not None
    assert not planOf(f"[defaults]\n{key}\n" + listener("unix:/run/x")).listeners[0].layers


def test_proxyThatTrustsNobody() -> None:
    """An empty list is a slip, but for a UNIX socket: there everybody sends a header."""
    with pytest.raises(ConfigurationError) as caught:
        planOf(listener("tcp:7") + "proxy = []\n")
    assert str(caught.value) == (
        '$.listener[0].proxy: trusts nobody; name networks, as "10.0.0.0/8"'
    )
    assert not planOf(listener("unix:/run/x")).listeners[0].layers


def test_anyPortIsNeverTaken() -> None:
    """Port 0 twice is two ports, and one port at two addresses is two addresses."""
    made = plan(
        Configuration(),
        [ask(), ask(), ask(endpoint="tcp:7"), ask(endpoint="tcp:7:interface=127.0.0.2")],
        REGISTRY,
        PLENTY,
    )
    assert len(made.listeners) == 4


@pytest.mark.parametrize("spelling", ["::1", "0:0:0:0:0:0:0:1", "::0001", "0::1"])
def test_oneAddressInTwoSpellings(spelling: str) -> None:
    """Two listeners on one address are refused, however it is written."""
    escaped = spelling.replace(":", r"\:")
    message = refused(
        ask(endpoint=r"tcp:7:interface=\:\:1"), ask(endpoint=f"tcp:7:interface={escaped}")
    )
    assert "is taken by --listen" in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (listener("tcp:1", "nope"), "$.listener[0].protocol: no protocol 'nope'"),
        (listener("tcp:1") + listener("ssl:1"), "$.listener[1].endpoint: cannot listen on 'ssl:1'"),
        (listener("tcp:x"), "$.listener[0].endpoint: 'x' in 'tcp:x' is no port"),
        (
            listener("tcp:1") + listener("tcp:2", "line", "options = {prefix = 1}"),
            "$.listener[1].options.prefix: Expected `str`, got `int`",
        ),
        (
            listener("tcp:1", "line", "options = {nope = 1}"),
            (
                "$.listener[0].options: Object contains unknown field `nope`"
                " (there are: goodbye, max_length, prefix, quit)"
            ),
        ),
        (
            # What the command line mends may still not be wrong in the file.
            listener("tcp:1", "line", "options = {max_length = 0}"),
            "$.listener[0].options.max_length: Expected `int` >= 1",
        ),
    ],
)
def test_placesOfAFile(text: str, message: str) -> None:
    """O3: each fault names its place in the file."""
    options = {"line": {"max_length": "5"}} if "max_length = 0" in text else None
    with pytest.raises(ConfigurationError) as caught:
        planOf(text, options=options)
    assert str(caught.value).startswith(message)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (ask("nope"), f"--listen: no protocol 'nope' (there are: {KNOWN})"),
        (ask(endpoint="tcp:x"), "--listen: 'x' in 'tcp:x' is no port"),
    ],
)
def test_placesOfTheCommandLine(request_: ListenerRequest, message: str) -> None:
    """O3: an option is a place without keys."""
    assert refused(request_).startswith(message)


# -- Descriptors ----------------------------------------------------------------------------


def test_defaultsShrinkAndSaySo() -> None:
    """One line for all listeners that the limit has made smaller."""
    limit = RESERVED + 3 * RESERVED_EACH + 3 * 105
    made = planOf("", limit=limit)
    assert [each.limits.maxConnections for each in made.listeners] == [100] * 3
    assert list(made.notes) == [
        f"max_connections is 100 a listener: the descriptor limit of {limit} holds no more"
    ]
    assert len(made.notes[0].splitlines()) == 1
    # The rest of their limits is left as it was.
    assert made.listeners[2].limits == Limits(maxConnections=100, idleTimeout=30.0)


@pytest.mark.parametrize(
    ("seconds", "noted"),
    [("0", []), ("0.5", ["0.5"]), ("2", ["2"]), ("19.9", ["19.9"]), ("20", []), ("60", [])],
)
def test_shortStall(seconds: str, noted: list[str]) -> None:
    """A deadline that cuts who reads slowly is told of, in one line for all that have it."""
    more = f"stall_timeout = {seconds}"
    made = planOf(listener("tcp:1", more=more) + listener("tcp:2", more=more) + listener("tcp:3"))
    assert [note.partition(" s:")[0] for note in made.notes] == [
        f"stall_timeout is {each}" for each in noted
    ]
    assert all(note.endswith("; give 20 s or more") for note in made.notes)


def test_noStallOfDatagrams() -> None:
    text = '[[listener]]\nprotocol = "udp"\nendpoint = "udp:1"\nstall_timeout = 1\n'
    assert list(planOf(text).notes) == []


def test_onlyDefaultsShrink() -> None:
    """An explicit value stays, and its listener has no note."""
    text = listener("tcp:1", more="max_connections = 200") + listener("tcp:2")
    made = planOf(text, limit=RESERVED + 2 * RESERVED_EACH + 210 + 105)
    assert [each.limits.maxConnections for each in made.listeners] == [200, 100]
    assert len(made.notes) == 1


@pytest.mark.parametrize(
    ("head", "own", "overrides", "place"),
    [
        ("[defaults]\nmax_connections = 1000\n", "", {}, "$.defaults.max_connections"),
        ("", "max_connections = 1000", {}, "$.listener[0].max_connections"),
        ("", "", {"max_connections": 1000}, "--max-connections"),
        (
            "[defaults]\nmax_connections = 5\n",
            "max_connections = 1000",
            {"max_connections": 6},
            "$.listener[0].max_connections",
        ),
    ],
)
def test_explicitMaximaAreRefused(
    head: str, own: str, overrides: dict[str, int], place: str
) -> None:
    """A number that was asked for and does not fit is refused, by its place."""
    text = head + listener("tcp:1", more=own)
    limit = RESERVED + RESERVED_EACH + 1049
    with pytest.raises(ConfigurationError) as caught:
        planOf(text, limit=limit, overrides=overrides)
    assert str(caught.value).startswith(f"{place}: max_connections of 1000 in all does not fit")
    assert list(planOf(text, limit=limit + 1, overrides=overrides).notes) == []


def test_tooFewDescriptorsForAnything() -> None:
    """O3: also when nobody asked for a number there is one line, and no traceback."""
    with pytest.raises(ConfigurationError, match=r"^max_connections: .* limit of 10 "):
        planOf("", limit=10)


def _raise() -> Any:
    raise KeyError("missing")


@pytest.mark.parametrize(
    ("maker", "endpoint"),
    [
        (FactoryMaker("bad", "raises", _raise), "tcp:0"),
        (DatagramMaker("bad", "raises", _raise), "udp:0"),
    ],
)
def test_makerRaises(maker: Any, endpoint: str) -> None:
    """What a third party's maker raises is one line that names it and the place."""
    made = plan(Configuration(), [ask("bad", endpoint)], Registry([maker]), 4096)
    with pytest.raises(ConfigurationError) as caught:
        EchodService(made, Outer())
    assert str(caught.value) == "--listen: protocol 'bad' cannot be served: KeyError: 'missing'"


# -- Options under other names ----------------------------------------------------------------


class Inner(Struct, rename="kebab", frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options within options."""

    some_word: str = "a"


class One(Struct, tag="one", frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One kind of them."""

    value: int = 1


class Two(Struct, tag="two", frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The other."""

    value: int = 2


class Renamed(Struct, rename="kebab", frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options that are written otherwise than their fields are called."""

    some_number: int = 1
    other_number: int = 2
    some_bytes: bytes = b"a"
    some_inner: Inner = Inner()
    some_kind: One | Two = One()


def _renamed(settings: Renamed) -> Connection:
    return Connection()


def test_optionsUnderOtherNames() -> None:
    """``--option`` goes over the file's, whatever the fields are called and hold."""
    registry = Registry([ConnectionMaker("renamed", "other names", _renamed, Renamed)])
    request = ask(
        "renamed",
        options={
            "some-number": 3,
            "some-inner": {"some-word": "b"},
            "some-kind": {"type": "two", "value": 7},
        },
    )
    made = plan(
        *(Configuration(), [request], registry, PLENTY),
        options={"renamed": {"other-number": "5", "some-bytes": "Yg=="}},
    )
    assert made.listeners[0].options == Renamed(
        some_number=3,
        other_number=5,
        some_bytes=b"b",
        some_inner=Inner(some_word="b"),
        some_kind=Two(value=7),
    )
    with pytest.raises(ConfigurationError, match=r"--option renamed: .*`other_number`") as refusal:
        plan(
            *(Configuration(), [request], registry, PLENTY),
            options={"renamed": {"other_number": "5"}},
        )
    assert "(there are: other-number, some-bytes, some-inner, some-kind, some-number)" in str(
        refusal.value
    )
    assert "    options.other-number: int = 2" in registry.describe()


@pytest.mark.parametrize(
    ("endpoint", "host"),
    [
        ("tcp:0", "127.0.0.1"),
        ("tcp:0:interface=192.0.2.1", "192.0.2.1"),
        ("tcp:0:interface=any", "any"),
    ],
)
@pytest.mark.parametrize("interface", ["0.0.0.0", "any", "::1"])
def test_loopback(endpoint: str, host: str, interface: str) -> None:
    """Where a protocol wants that, an endpoint that names no interface is of this machine alone."""
    text = f'[[listener]]\nprotocol = "admin"\nendpoint = "{endpoint}"'
    text += '\n[[listener]]\nprotocol = "raw"\nendpoint = "tcp:1"'
    admin, raw = planOf(text, interface=interface).listeners
    assert admin.endpoint == TCPEndpoint(host, 0)
    assert raw.endpoint == TCPEndpoint(interface, 1)
