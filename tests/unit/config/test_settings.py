"""`echod.config.settings`: TOML to typed values, or one line with the place and the mend."""

from __future__ import annotations

import tomllib
from enum import Enum
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from echod.config.settings import Configuration, Limits, convert, parseConfiguration, resolveLimits
from echod.errors import ConfigurationError
from echod.protocols.line import LineOptions
from echod.protocols.prefixed import DNSOptions
from echod.protocols.raw import RawOptions

LISTENER = '[[listener]]\nprotocol = "raw"\nendpoint = "tcp:1"\n'


def refused(text: str) -> str:
    """The message that refuses the document: one line, always."""
    with pytest.raises(ConfigurationError) as caught:
        parseConfiguration(text)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def optionsRefused(options: dict[str, Any], kind: type[msgspec.Struct]) -> str:
    """The message that refuses a protocol's ``options``."""
    with pytest.raises(ConfigurationError) as caught:
        convert(options, kind, "$.listener[1].options")
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


# -- What is read ---------------------------------------------------------------------------


def test_nothing() -> None:
    """An empty document is the defaults, with no listener of its own."""
    assert parseConfiguration("") == Configuration()
    assert parseConfiguration("").listener is None
    assert parseConfiguration("").drainTimeout == 10.0
    assert parseConfiguration("").logConnections is False


def test_everything() -> None:
    """Each table is read as written: no default is filled in before the layers meet."""
    configuration = parseConfiguration(
        """
        drain_timeout = 2
        log_connections = true
        [defaults]
        max_connections = 5
        idle_timeout = 1.5
        [[listener]]
        protocol = "line"
        endpoint = "tcp:7"
        stall_timeout = 3
        [listener.options]
        prefix = "Echo: "
        nobody_knows = [1, 2]
        [[listener]]
        protocol = "third-party"
        endpoint = 'tcp:8:interface=\\:\\:1'
        """
    )
    assert configuration.drainTimeout == 2.0
    assert configuration.logConnections is True
    assert configuration.defaults == {"max_connections": 5, "idle_timeout": 1.5}
    assert configuration.listener == [
        {
            "protocol": "line",
            "endpoint": "tcp:7",
            "stall_timeout": 3,
            "options": {"prefix": "Echo: ", "nobody_knows": [1, 2]},
        },
        {"protocol": "third-party", "endpoint": r"tcp:8:interface=\:\:1"},
    ]


def test_defaultsOfLimits() -> None:
    """Every key has the default that the documents say."""
    assert msgspec.to_builtins(Limits()) == {
        "max_connections": 1000,
        "backlog": 4096,
        "bind_timeout": 0.0,
        "idle_timeout": 0.0,
        "stall_timeout": 60.0,
        "linger_timeout": 5.0,
        "max_age": 0.0,
        "handshake_timeout": 10.0,
        "first_byte_timeout": 0.0,
        "max_bytes": 0,
        "bytes_per_second": 0,
        "listener_bytes_per_second": 0,
        "max_per_source": 0,
        "new_per_second": 0,
        "source_prefix": (32, 128),
        "allow": [],
        "deny": [],
        "datagrams_per_second": 10_000,
        "reflector_ports": None,
        "keepalive": 60,
    }


@pytest.mark.parametrize("key", Limits.__struct_encode_fields__)
def test_everyKeyHasADescription(key: str) -> None:
    """``--help`` is made of it."""
    (field,) = (field for field in msgspec.structs.fields(Limits) if field.encode_name == key)
    info: Any = msgspec.inspect.type_info(field.type)
    assert info.extra_json_schema["description"]


# -- Where the fault is ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("drain_timeout = 'x'", "$.drain_timeout: Expected `float`, got `str`"),
        ("drain_timeout = true", "$.drain_timeout: Expected `float`, got `bool`"),
        ("log_connections = 1", "$.log_connections: Expected `bool`, got `int`"),
        ("defaults = 1", "$.defaults: Expected `object`, got `int`"),
        ("listener = 1", "$.listener: Expected `array"),
        ("listener = [1]", "$.listener[0]: Expected `object`, got `int`"),
        ("listener = []", "$.listener: is empty; add a [[listener]] table or none"),
        ("[listener]\nprotocol = 'raw'", "$.listener: Expected `array"),
        ("[defaults]\nbacklog = '1'", "$.defaults.backlog: Expected `int`, got `str`"),
        ("[defaults]\nbacklog = 1.0", "$.defaults.backlog: Expected `int`, got `float`"),
        ("[defaults]\nmax_age = 2020-01-01", "$.defaults.max_age: Expected `float`, got `date`"),
        ("[[listener]]", "$.listener[0]: Object missing required field `protocol`"),
        (
            "[[listener]]\nprotocol = 'raw'",
            "$.listener[0]: Object missing required field `endpoint`",
        ),
        (
            LISTENER + "[[listener]]\nprotocol = 1\nendpoint = ''",
            "$.listener[1].protocol: Expected `str`, got `int`",
        ),
        (
            LISTENER + "[[listener]]\nprotocol = 'raw'\nendpoint = 1",
            "$.listener[1].endpoint: Expected `str`, got `int`",
        ),
        (LISTENER + "options = 1", "$.listener[0].options: Expected `object`, got `int`"),
        (LISTENER + "keepalive = []", "$.listener[0].keepalive: Expected `int`, got `array`"),
    ],
)
def test_wrongTypes(text: str, message: str) -> None:
    """O3: every type error names its place as msgspec prints it."""
    assert refused(text).startswith(message)


BOUNDS: list[tuple[str, list[str], list[str]]] = [
    ("max_connections", ["1", "1_000_000"], ["0", "-1", "1_000_001", "99999999999999999999"]),
    ("backlog", ["1", "65535"], ["0", "-1", "65536"]),
    ("keepalive", ["0", "1", "32767"], ["-1", "32768"]),
    ("handshake_timeout", ["0.25", "10", "31536000"], ["0", "-1", "31536001", "nan", "inf"]),
    *(
        (key, ["0", "0.0", "0.25", "31536000"], ["-0.1", "-1", "31536001", "nan", "inf", "-inf"])
        for key in (
            *("idle_timeout", "stall_timeout", "linger_timeout", "max_age"),
            *("first_byte_timeout", "bind_timeout"),
        )
    ),
    *(
        (key, ["0", "1", str(most)], ["-1", "0.5", str(most + 1)])
        for key, most in (
            ("max_bytes", 1 << 53),
            ("bytes_per_second", 1 << 40),
            ("listener_bytes_per_second", 1 << 40),
            ("max_per_source", 1_000_000),
            ("new_per_second", 1_000_000),
            ("datagrams_per_second", 10_000_000),
        )
    ),
]
#: Keys whose values are lists, each with what is good and bad in one.
LISTS: dict[str, tuple[list[str], list[str]]] = {
    "source_prefix": (["[0, 0]", "[32, 128]"], ["[33, 1]", "[1, 129]", "[1]", "[-1, 0]", "24"]),
    "allow": (["[]", "['10.0.0.0/8', '::1']"], ["['x']", "['10.0.0.1/8']", "[1]", "'::1'"]),
    "deny": (["[]", "['fe80::/10']"], ["['10.0.0.0/33']", "['']", "['localhost']"]),
    "reflector_ports": (["[]", "[0, 65535]"], ["[65536]", "[-1]", "['7']", "7"]),
}
WHERE = [("[defaults]\n", "$.defaults"), (LISTENER, "$.listener[0]")]


@pytest.mark.parametrize(("head", "place"), WHERE)
@pytest.mark.parametrize(("key", "good", "bad"), BOUNDS, ids=[key for key, _, _ in BOUNDS])
def test_bounds(head: str, place: str, key: str, good: list[str], bad: list[str]) -> None:
    """What is out of bounds, nan and bool are refused, by place."""
    assert key in Limits.__struct_encode_fields__
    for value in good:
        configuration = parseConfiguration(f"{head}{key} = {value}")
        layer = configuration.defaults or (configuration.listener or [{}])[0]
        assert msgspec.to_builtins(resolveLimits(layer))[key] == float(value)
    for value in [*bad, "true", "false", "'1'", "[1]"]:
        assert refused(f"{head}{key} = {value}").startswith(f"{place}.{key}: ")


def test_allBoundsAreTested() -> None:
    """A new key needs a line in `BOUNDS`."""
    assert {key for key, _, _ in BOUNDS} | set(LISTS) == set(Limits.__struct_encode_fields__)


@pytest.mark.parametrize(("head", "place"), WHERE)
@pytest.mark.parametrize("key", LISTS)
def test_lists(head: str, place: str, key: str) -> None:
    """Networks, ports and prefixes: what is none is refused, by place."""
    good, bad = LISTS[key]
    for value in good:
        configuration = parseConfiguration(f"{head}{key} = {value}")
        layer = configuration.defaults or (configuration.listener or [{}])[0]
        assert (
            list(msgspec.to_builtins(resolveLimits(layer))[key])
            == tomllib.loads(f"x = {value}")["x"]
        )
    for value in bad:
        assert refused(f"{head}{key} = {value}").startswith(place)


def test_networksMend() -> None:
    """What is nearly a network is told with the mend."""
    assert refused("[defaults]\ndeny = ['10.0.0.1/8']") == (
        "$.defaults: '10.0.0.1/8' is no network: 10.0.0.1/8 has host bits set; write 10.0.0.0/8"
    )


@pytest.mark.parametrize("value", ["nan", "inf", "-1", "-inf", "31536001", "true"])
def test_drainTimeoutIsBounded(value: str) -> None:
    """O1: one deadline, finite."""
    assert refused(f"drain_timeout = {value}").startswith("$.drain_timeout: ")
    assert parseConfiguration("drain_timeout = 0").drainTimeout == 0.0


LIMIT_KEYS = ", ".join(sorted(Limits.__struct_encode_fields__))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "nope = 1",
            (
                "$: Object contains unknown field `nope`"
                " (there are: defaults, drain_delay, drain_timeout, listener, log_connections,"
                " log_payload)"
            ),
        ),
        (
            "[defaults]\nprotocol = 'raw'",
            f"$.defaults: Object contains unknown field `protocol` (there are: {LIMIT_KEYS})",
        ),
        (
            LISTENER + "[[listener]]\nprotocol = 'raw'\nendpoint = ''\nnope = 1",
            "$.listener[1]: Object contains unknown field `nope` (there are: "
            + ", ".join(
                sorted(
                    [
                        *Limits.__struct_encode_fields__,
                        *("endpoint", "options", "protocol", "proxy", "tls"),
                    ]
                )
            )
            + ")",
        ),
    ],
)
def test_unknownKeys(text: str, message: str) -> None:
    """O3: an unknown key is refused, with the known ones."""
    assert refused(text) == message


@pytest.mark.parametrize(
    "text", ['"a\\nb" = 1', '[defaults]\n"a\\nb" = 1', LISTENER + '"a\\nb" = 1']
)
def test_unknownKeysWithLineEnds(text: str) -> None:
    """O3: one line, also where the key has more."""
    assert r"unknown field `a\nb`" in refused(text)


def test_unknownOptionWithALineEnd() -> None:
    """O3: the same in a protocol's options; no control characters either."""
    assert r"unknown field `a\nb`" in optionsRefused({"a\nb": 1}, RawOptions)
    assert r"unknown field `\x1b[31m`" in optionsRefused({"\x1b[31m": 1}, RawOptions)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("nope", "(at end of document)"),
        ("a = \n", "(at line 1, column 5)"),
        ("a = 1\na = 2\n", "Cannot overwrite"),
        ("x = 'a\0b'", "(at line 1, column 7)"),
        ('"\ud800" = 1', "surrogates not allowed"),
        ("\ufeffdrain_timeout = 1", "(at line 1, column 1)"),
        ("[[listener]\n", "line 1"),
    ],
)
def test_notTOML(text: str, what: str) -> None:
    """O3: the parser's own words, with line and column."""
    message = refused(text)
    assert message.startswith("not TOML: ")
    assert what in message


@pytest.mark.parametrize(
    "text",
    ["drain_timeout = " + "9" * 5000, "drain_timeout = " + "[" * 5000],
    ids=["too many digits", "too deep"],
)
def test_whatTheParserCannotTake(text: str) -> None:
    """O3: `tomllib` raises more than its own error."""
    assert refused(text).startswith("not TOML: ")


class Inner(Struct, rename="kebab", frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options within options, under other names than their fields'."""

    some_mode: Literal["fast", "slow"] = "fast"


class Level(Enum):
    """A choice that is no `Literal`."""

    LOW = "low"
    HIGH = "high"


class Renamed(Struct, rename="camel", frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options under other names than their fields'."""

    some_number: int = 1
    some_level: Level = Level.LOW
    some_inner: Inner = Inner()
    by_name: dict[str, Inner] = msgspec.field(default_factory=dict)
    maybe: Literal["x", "y"] | None = None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"some_number": 2},
            (
                "$: Object contains unknown field `some_number`"
                " (there are: byName, maybe, someInner, someLevel, someNumber)"
            ),
        ),
        (
            {"someInner": {"someMode": "fast"}},
            "$.someInner: Object contains unknown field `someMode` (there are: some-mode)",
        ),
        (
            {"byName": {"a.b": {"some_mode": "fast"}}},
            "$.byName[...]: Object contains unknown field `some_mode` (there are: some-mode)",
        ),
        (
            {"someLevel": "none"},
            "$.someLevel: Invalid enum value 'none' (there are: 'low', 'high')",
        ),
        (
            {"someInner": {"some-mode": "none"}},
            "$.someInner.some-mode: Invalid enum value 'none' (there are: 'fast', 'slow')",
        ),
        ({"maybe": "z"}, "$.maybe: Invalid enum value 'z' (there are: 'x', 'y')"),
    ],
)
def test_renamed(options: dict[str, Any], message: str) -> None:
    """An error knows the keys that are written, and those of the place where it is."""
    with pytest.raises(ConfigurationError) as refusal:
        convert(options, Renamed)
    assert str(refusal.value) == message


# -- Options of protocols -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (LineOptions, {"prefix": 1}, ".prefix: Expected `str`, got `int`"),
        (LineOptions, {"prefix": "x" * 257}, ".prefix: Expected `str` of length <= 256"),
        (LineOptions, {"quit": "a\nb"}, ".quit: Expected `str` matching"),
        (LineOptions, {"quit": "quit\r"}, ".quit: Expected `str` matching"),
        (LineOptions, {"quit": "quit\n"}, ".quit: Expected `str` matching"),
        (LineOptions, {"quit": "x" * 257}, ".quit: Expected `str` of length <= 256"),
        (LineOptions, {"goodbye": "a\n"}, ".goodbye: Expected `str` matching"),
        (LineOptions, {"goodbye": None}, ".goodbye: Expected `str`, got `null`"),
        (LineOptions, {"max_length": 0}, ".max_length: Expected `int` >= 1"),
        (LineOptions, {"max_length": 65537}, ".max_length: Expected `int` <= 65536"),
        (LineOptions, {"max_length": True}, ".max_length: Expected `int`, got `bool`"),
        (LineOptions, {"max_length": "5"}, ".max_length: Expected `int`, got `str`"),
        (DNSOptions, {"max_length": -1}, ".max_length: Expected `int` >= 0"),
        (DNSOptions, {"max_length": 65536}, ".max_length: Expected `int` <= 65535"),
        (DNSOptions, {"strict": 1}, ".strict: Expected `bool`, got `int`"),
        (DNSOptions, {"strict": "true"}, ".strict: Expected `bool`, got `str`"),
        (RawOptions, {"quit": 1}, ".quit: Expected `str`, got `int`"),
        (RawOptions, {"quit": "x" * 257}, ".quit: Expected `str` of length <= 256"),
        (RawOptions, {"q": 1}, ": Object contains unknown field `q` (there are: quit)"),
        (
            LineOptions,
            {"q": 1},
            ": Object contains unknown field `q` (there are: goodbye, max_length, prefix, quit)",
        ),
    ],
)
def test_optionsOfProtocols(
    kind: type[msgspec.Struct], options: dict[str, Any], message: str
) -> None:
    """O3: an option's error names ``$.listener[1].options.KEY``."""
    assert optionsRefused(options, kind).startswith(f"$.listener[1].options{message}")


def test_optionsAreText() -> None:
    """Bytes on the wire are written as text, never as base64."""
    assert convert({"quit": "quit"}, RawOptions).quit == "quit"
    assert convert({"quit": "\n"}, RawOptions).quit == "\n"
    assert convert({"prefix": "Écho: "}, LineOptions).prefix == "Écho: "


def test_textForNumbers() -> None:
    """The command line's values are text: read as what is wanted, checked the same."""
    options = convert({"max_length": "100", "quit": "5"}, LineOptions, strict=False)
    assert options.maxLength == 100
    assert options.quit == "5"
    assert convert({"strict": "true"}, DNSOptions, strict=False).strict is True
    with pytest.raises(
        ConfigurationError, match=r"^here\.max_length: Expected `int` <= 65536, not '65537'$"
    ):
        convert({"max_length": "65537"}, LineOptions, "here", strict=False)
    with pytest.raises(ConfigurationError, match=r"^here\.idle_timeout: .* >= 0.0, not 'nan'$"):
        convert({"idle_timeout": "nan"}, Limits, "here", strict=False)
    with pytest.raises(ConfigurationError, match=r"^here\.strict: Expected `bool`, got `str`$"):
        convert({"strict": "maybe"}, DNSOptions, "here", strict=False)


# -- Layers ---------------------------------------------------------------------------------


def test_noLayers() -> None:
    """The last resort."""
    assert resolveLimits() == Limits()
    assert resolveLimits({}, {}) == Limits()


def test_laterLayersWin() -> None:
    """Protocol, ``[defaults]``, the listener's own: key by key."""
    limits = resolveLimits(
        {"idle_timeout": 30.0, "max_age": 1.0, "backlog": 1},
        {"idle_timeout": 20.0, "max_connections": 7, "backlog": 2},
        {"idle_timeout": 0, "protocol": "raw", "options": {"quit": "x"}},
    )
    assert limits == Limits(idleTimeout=0.0, maxAge=1.0, backlog=2, maxConnections=7)


keys = st.sampled_from([key for key, _, _ in BOUNDS])
layers = st.lists(st.dictionaries(keys, st.integers(1, 1000)), max_size=4)


@given(layers=layers)
def test_anyLayers(layers: list[dict[str, int]]) -> None:
    """The last layer that has a key says it; the rest stays at the default."""
    limits = msgspec.to_builtins(resolveLimits(*layers))
    for key, default in msgspec.to_builtins(Limits()).items():
        given_ = [layer[key] for layer in layers if key in layer]
        assert limits[key] == (given_[-1] if given_ else default)
