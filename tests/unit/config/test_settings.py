"""`echod.config.settings`: TOML to typed values, or one line with the place and the mend."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from echod.config.limits import Limits
from echod.config.settings import Configuration, parseConfiguration, resolveLimits
from tests.unit.config.documents import LISTENER, refused


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
                " log_format, log_payload)"
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


keys = st.sampled_from(
    [
        field.encode_name
        for field in msgspec.structs.fields(Limits)
        if isinstance(field.default, int | float)
    ]
)
layers = st.lists(st.dictionaries(keys, st.integers(1, 1000)), max_size=4)


@given(layers=layers)
def test_anyLayers(layers: list[dict[str, int]]) -> None:
    """The last layer that has a key says it; the rest stays at the default."""
    limits = msgspec.to_builtins(resolveLimits(*layers))
    for key, default in msgspec.to_builtins(Limits()).items():
        given_ = [layer[key] for layer in layers if key in layer]
        assert limits[key] == (given_[-1] if given_ else default)
