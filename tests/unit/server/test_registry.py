"""`echod.server.registry`: makers by name, and what ``--list-protocols`` says of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any

import pytest
from msgspec import Meta, Struct
from zope.interface import implementer
from zope.interface.verify import verifyObject

from echod import __version__
from echod.connection.connection import Connection
from echod.errors import ConfigurationError
from echod.interfaces import IStreamProtocolMaker
from echod.kit.makers import ConnectionMaker
from echod.protocols.discard import discard
from echod.protocols.line import LineOptions, line
from echod.protocols.prefixed import DNSOptions, dns
from echod.protocols.raw import RawOptions, raw
from echod.server.registry import BUILTIN, Offer, Registry
from echod.startup import StoppedEarly
from echod.testing import PlainContext


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


SILENT = ConnectionMaker("silent", "answers nothing", Silent, Options, {"idle_timeout": 5.0})


STREAMS = [maker for maker in BUILTIN if IStreamProtocolMaker.providedBy(maker)]


@pytest.mark.parametrize("maker", [*STREAMS, SILENT], ids=lambda maker: str(maker.name))
def test_makers(maker: IStreamProtocolMaker) -> None:
    """A maker keeps the contract, and its connections get the settings they need."""
    verifyObject(IStreamProtocolMaker, maker)
    factory = maker.makeFactory(maker.options() if maker.options else None, PlainContext())
    connection = factory.buildProtocol(None)
    assert isinstance(connection, Connection)
    assert connection is not factory.buildProtocol(None)


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
    """Raw, line, dns and discard by name."""
    registry = Registry()
    assert registry.get("raw", "here") is raw
    assert registry.get("line", "here") is line
    assert registry.get("dns", "here") is dns
    assert registry.get("discard", "here") is discard


@pytest.mark.parametrize("name", ["nope", "", "RAW", "raw ", "raw\n"])
def test_unknownProtocol(name: str) -> None:
    """O3: one line with the place, the name and the known ones, sorted."""
    with pytest.raises(ConfigurationError) as caught:
        Registry().get(name, "$.listener[2].protocol")
    known = ", ".join(sorted(maker.name for maker in BUILTIN))
    assert str(caught.value) == (
        f"$.listener[2].protocol: no protocol {name!r} (there are: {known})"
    )
    assert "discard, dns" in known


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
        maxLength=5
    )
    assert registry.settings(raw, {}, "here", strict=True) == RawOptions()
    with pytest.raises(ConfigurationError, match=r"^here\.max_length: Expected `int`, got `str`$"):
        registry.settings(dns, {"max_length": "5"}, "here", strict=True)
    assert registry.settings(discard, {}, "here", strict=True) is None
    with pytest.raises(ConfigurationError, match=r"^here: protocol 'discard' has no options$"):
        registry.settings(discard, {"quit": "q"}, "here", strict=True)


def test_describe() -> None:
    """``--list-protocols``: name, description, preferred limits, each option."""
    assert Registry([SILENT]).describe().splitlines() == [
        f"silent  answers nothing  (twisted-echod {__version__})",
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
    assert [head.split()[0] for head in heads] == [maker.name for maker in BUILTIN]
    options = [line.split(":")[0].strip() for line in lines if "options." in line]
    assert options == [
        f"options.{key}"
        for maker in BUILTIN
        if maker.options is not None
        for key in maker.options.__struct_encode_fields__
    ]
    assert {"options.prefix", "options.max_length", "options.strict"} <= set(options)
    # Each is described, with its kind and its default.
    assert all("  " in line.strip() and " = " in line for line in lines if "options." in line)
    assert "    idle_timeout = 30.0" in lines
    assert '    options.goodbye: str = "Bye."  the answer to quit' in lines


# -- Makers of others ------------------------------------------------------------------------


def offered(maker: object, name: str = "silent", source: str = "other 1.5") -> Registry:
    """A registry of echod's own and one offer, and another that is sound."""

    def load() -> object:
        if isinstance(maker, BaseException):
            raise maker
        return maker

    sound = Offer("sound", "sound 2.0", lambda: replace(SILENT, name="sound"))
    return Registry(offers=[Offer(name, source, load), sound])


def test_offer() -> None:
    """Another distribution's maker is served like echod's own, and named with its version."""
    registry = offered(SILENT)
    assert registry.problems == []
    assert registry.get("silent", "here") is SILENT
    assert "silent  answers nothing  (other 1.5)" in registry.describe().splitlines()


class Loose(Struct):
    """Takes fields that it does not know."""


class Demanding(Struct, forbid_unknown_fields=True):
    """Has no default."""

    must: int


class Untold(Struct, forbid_unknown_fields=True):
    """Has a field that no text can give."""

    what: object = object()


def changed(**values: Any) -> ConnectionMaker:
    """A maker with something in it that the types forbid."""
    return replace(SILENT, **values)


BROKEN: dict[str, tuple[Any, str]] = {
    "import": (ImportError("no module\nnamed x"), "ImportError: no module"),
    "exit": (SystemExit(3), "SystemExit: 3"),
    "interface": (object(), "provides neither"),
    "class": (ConnectionMaker, "provides neither"),
    "name": (replace(SILENT, name="Silent"), "its name 'Silent' does not match"),
    "other name": (replace(SILENT, name="quiet"), "its name is 'quiet'; name its entry point so"),
    "number": (changed(name=5), "its name 5 does not match"),
    "description": (replace(SILENT, description="two\nlines"), "is not one line"),
    "defaults": (replace(SILENT, defaults={"idle": 3.0}), "unknown field `idle`"),
    "no mapping": (changed(defaults=[1]), "are no mapping"),
    "options": (changed(options=dict), "are no msgspec.Struct class"),
    "an object": (changed(options=Options()), "are no msgspec.Struct class"),
    "loose": (replace(SILENT, options=Loose), "forbid_unknown_fields=True"),
    "demanding": (replace(SILENT, options=Demanding), "missing required field `must`"),
    "untold": (replace(SILENT, options=Untold), "TypeError: "),
}


@implementer(IStreamProtocolMaker)
class OfMyOwn:
    """A maker without the kit, and what its method takes."""

    name = "silent"
    description = "x"
    options = None
    defaults: dict[str, Any] = {}

    def __init__(self, makeFactory: Callable[..., Any]) -> None:
        self.makeFactory = makeFactory


@pytest.mark.parametrize(
    "method", [lambda settings: None, lambda settings, context: None, lambda *both: None]
)
def test_contextMayBeLeftOut(method: Callable[..., Any]) -> None:
    """A maker that takes the settings alone is as good as one that takes the context too."""
    registry = offered(OfMyOwn(method))
    assert registry.problems == []
    assert registry.get("silent", "here").name == "silent"


BROKEN |= {
    "no argument": (
        OfMyOwn(lambda: None),
        "its makeFactory takes neither (settings) nor (settings, context)",
    ),
    "another argument": (
        OfMyOwn(lambda settings, world: None),
        "its makeFactory takes neither (settings) nor (settings, context)",
    ),
}


@pytest.mark.parametrize("case", list(BROKEN))
def test_brokenOffer(case: str) -> None:
    """A broken one is blamed in one line, by distribution; the others still serve."""
    maker, why = BROKEN[case]
    registry = offered(maker)
    (problem,) = registry.problems
    assert problem.startswith("protocol 'silent' of other 1.5 is left out: ")
    assert why in problem
    assert problem.isprintable()
    assert registry.get("sound", "here").name == "sound"
    assert registry.get("raw", "here") is raw
    with pytest.raises(ConfigurationError) as caught:
        registry.get("silent", "$.listener[0].protocol")
    assert str(caught.value) == f"$.listener[0].protocol: {problem}"
    assert "silent" not in registry.describe()


def test_nameTaken() -> None:
    """The name of a built-in, or of an earlier distribution's, is not given twice."""
    taken = replace(SILENT, name="raw")
    registry = offered(taken, "raw")
    why = f"twisted-echod {__version__} has that name already"
    assert registry.problems == [f"protocol 'raw' of other 1.5 is left out: {why}"]
    assert registry.get("raw", "here") is raw
    twice = Registry(
        offers=[Offer("silent", "a 1", lambda: SILENT), Offer("silent", "b 2", lambda: taken)]
    )
    assert twice.problems == ["protocol 'silent' of b 2 is left out: a 1 has that name already"]
    assert twice.get("silent", "here") is SILENT


def test_interrupted() -> None:
    """Ctrl-C while a module is imported is the user's, not the module's."""
    with pytest.raises(KeyboardInterrupt):
        offered(KeyboardInterrupt())


def test_stoppedEarly() -> None:
    """SIGTERM while options are made is an orderly end, and no fault of theirs."""

    class Slow(Struct):
        def __post_init__(self) -> None:
            raise StoppedEarly(0)

    slow = ConnectionMaker("slow", "takes its time", Silent, Slow)
    with pytest.raises(StoppedEarly):
        Registry().settings(slow, {}, "here", strict=True)
