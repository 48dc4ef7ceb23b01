"""`echod.config.conversion`: plain values to typed ones, or one line that says what is wrong."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Any, Literal

import msgspec
import pytest
from msgspec import Struct

from echod.config.conversion import convert, listKeys, splitLists
from echod.config.limits import Limits
from echod.errors import ConfigurationError
from echod.protocols.line import LineOptions
from echod.protocols.prefixed import DNSOptions
from echod.protocols.raw import RawOptions


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


def optionsRefused(options: dict[str, Any], kind: type[msgspec.Struct]) -> str:
    """The message that refuses a protocol's ``options``."""
    with pytest.raises(ConfigurationError) as caught:
        convert(options, kind, "$.listener[1].options")
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


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


def test_unknownOptionWithALineEnd() -> None:
    """O3: the same in a protocol's options; no control characters either."""
    assert r"unknown field `a\nb`" in optionsRefused({"a\nb": 1}, RawOptions)
    assert r"unknown field `\x1b[31m`" in optionsRefused({"\x1b[31m": 1}, RawOptions)


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
        (RawOptions, {"q": 1}, ": Object contains unknown field `q` (there are: in_place, quit)"),
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


class Listing(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options that are lists, and some that are not."""

    names: Annotated[list[str], msgspec.Meta(description="x")] = msgspec.field(default_factory=list)
    pair: tuple[int, int] = (0, 0)
    some: set[int] | None = None
    text: str = ""
    table: dict[str, str] = msgspec.field(default_factory=dict)


def test_lists() -> None:
    """Text for a list is cut at its commas; all else stays as it is."""
    assert listKeys(Listing) == {"names", "pair", "some"}
    given = {"names": "a,b", "pair": "1,2", "some": "3", "text": "a,b", "table": {"a": "b,c"}}
    split = splitLists(given, Listing)
    assert split == {
        "names": ["a", "b"],
        "pair": ["1", "2"],
        "some": ["3"],
        "text": "a,b",
        "table": {"a": "b,c"},
    }
    assert convert(split, Listing, strict=False) == Listing(
        names=["a", "b"], pair=(1, 2), some={3}, text="a,b", table={"a": "b,c"}
    )
    assert splitLists({"names": ["a,b"], "unknown": "a,b"}, Listing) == {
        "names": ["a,b"],
        "unknown": "a,b",
    }
