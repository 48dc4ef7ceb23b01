"""`echod.registry`: makers by name, and what ``--list-protocols`` says of them."""

from __future__ import annotations

from typing import Annotated

import pytest
from msgspec import Meta, Struct
from zope.interface.verify import verifyObject

from echod.connection import Connection
from echod.errors import ConfigurationError
from echod.interfaces import IProtocolMaker
from echod.maker import ConnectionMaker
from echod.protocols.line import LineOptions, line
from echod.protocols.prefixed import DNSOptions, dns
from echod.protocols.raw import RawOptions, raw
from echod.registry import BUILTIN, Registry


class Options(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One field of each kind."""

    plain: int = 3
    words: Annotated[str, Meta(description="with a description")] = "a"
    both: Annotated[Annotated[float, Meta(ge=0)], Meta(le=1, description="described outside")] = 0.5
    flag: bool = False


class Silent(Connection):
    """A protocol that answers nothing."""

    def __init__(self, settings: Options) -> None:
        self.settings = settings

    def received(self, data: bytes) -> None:
        """Throw it away."""


SILENT = ConnectionMaker("silent", "answers nothing", Options, Silent, {"idle_timeout": 5.0})


@pytest.mark.parametrize("maker", [*BUILTIN, SILENT], ids=lambda maker: str(maker.name))
def test_makers(maker: IProtocolMaker) -> None:
    """A maker keeps the contract, and its connections get the settings they need."""
    verifyObject(IProtocolMaker, maker)
    connection = maker.makeFactory(maker.options()).buildProtocol(None)
    assert isinstance(connection, Connection)
    assert connection is not maker.makeFactory(maker.options()).buildProtocol(None)


def test_settingsReachTheConnection() -> None:
    """Each connection of a factory gets that factory's settings."""
    settings = Options(plain=9)
    factory = SILENT.makeFactory(settings)
    first, second = factory.buildProtocol(None), factory.buildProtocol(None)  # type: ignore[arg-type]  # no address
    assert isinstance(first, Silent)
    assert isinstance(second, Silent)
    assert first.settings is second.settings is settings
    assert first is not second


def test_builtin() -> None:
    """DESIGN: raw, line and dns by name."""
    registry = Registry()
    assert registry.get("raw", "here") is raw
    assert registry.get("line", "here") is line
    assert registry.get("dns", "here") is dns


@pytest.mark.parametrize("name", ["nope", "", "RAW", "raw ", "raw\n"])
def test_unknownProtocol(name: str) -> None:
    """O3: one line with the place, the name and the known ones, sorted."""
    with pytest.raises(ConfigurationError) as caught:
        Registry().get(name, "$.listener[2].protocol")
    assert str(caught.value) == (
        f"$.listener[2].protocol: no protocol {name!r} (there are: dns, line, raw)"
    )


def test_onlyItsOwnMakers() -> None:
    """A registry knows what it was given."""
    registry = Registry([SILENT])
    assert registry.get("silent", "here") is SILENT
    with pytest.raises(ConfigurationError, match=r"\(there are: silent\)$"):
        registry.get("raw", "here")


def test_settings() -> None:
    """Plain values become the maker's own class; text for numbers only where it may."""
    registry = Registry()
    assert registry.settings(line, {"prefix": "> "}, "here", strict=True) == LineOptions(
        prefix="> "
    )
    assert registry.settings(dns, {"max_length": "5"}, "here", strict=False) == DNSOptions(
        max_length=5
    )
    assert registry.settings(raw, {}, "here", strict=True) == RawOptions()
    with pytest.raises(ConfigurationError, match=r"^here\.max_length: Expected `int`, got `str`$"):
        registry.settings(dns, {"max_length": "5"}, "here", strict=True)


def test_describe() -> None:
    """``--list-protocols``: name, description, preferred limits, each option."""
    assert Registry([SILENT]).describe().splitlines() == [
        "silent  answers nothing",
        "    idle_timeout = 5.0",
        "    options.plain: int = 3",
        '    options.words: str = "a"  with a description',
        "    options.both: float = 0.5  described outside",
        "    options.flag: bool = false",
    ]


def test_describeBuiltin() -> None:
    """``--list-protocols`` names each protocol and each of its options, in order."""
    lines = Registry().describe().splitlines()
    heads = [line for line in lines if not line.startswith(" ")]
    assert [head.split()[0] for head in heads] == ["raw", "line", "dns"]
    options = [line.split(":")[0].strip() for line in lines if "options." in line]
    assert options == [
        "options.quit",
        "options.prefix",
        "options.quit",
        "options.goodbye",
        "options.max_length",
        "options.max_length",
        "options.strict",
    ]
    # Each is described, with its kind and its default.
    assert all("  " in line.strip() and " = " in line for line in lines if "options." in line)
    assert "    idle_timeout = 30.0" in lines
    assert '    options.goodbye: str = "Bye."  the answer to quit' in lines
