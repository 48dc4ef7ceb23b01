"""`echod.config.limits`: each key's default and bounds, where it may stand."""

from __future__ import annotations

import tomllib
from typing import Any

import msgspec
import pytest

from echod.config.limits import Limits
from echod.config.settings import parseConfiguration, resolveLimits
from tests.unit.config.documents import LISTENER, refused

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
            ("timeline", 65536),
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
        "timeline": None,
        "keepalive": 60,
    }


@pytest.mark.parametrize("key", Limits.__struct_encode_fields__)
def test_everyKeyHasADescription(key: str) -> None:
    """``--help`` is made of it."""
    (field,) = (field for field in msgspec.structs.fields(Limits) if field.encode_name == key)
    info: Any = msgspec.inspect.type_info(field.type)
    assert info.extra_json_schema["description"]


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
