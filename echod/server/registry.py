"""
Which protocols there are: echod's own, and those of other distributions.

Others come through entry points (the packaging specification of that name) of the group
``echod.protocols``, because those name the distribution and its version.  Each maker is
verified as it is loaded; one that is broken is blamed in one line and left out, and never stops
the others.  Constructors are pure: `Registry` takes what it is to know, `discover` looks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import Distribution, EntryPoint, distribution, distributions
from typing import Any

import msgspec
from zope.interface.exceptions import BrokenMethodImplementation, Invalid
from zope.interface.verify import verifyObject

from echod import __version__
from echod.admin.maker import admin
from echod.config.conversion import convert, splitLists
from echod.config.limits import Limits
from echod.errors import ConfigurationError, oneLine, whatFailed
from echod.interfaces import IDatagramProtocolMaker, IProtocolMaker, IStreamProtocolMaker
from echod.kit.context_parameter import canCallMaker
from echod.protocols.chargen import chargen
from echod.protocols.clock import daytime, time
from echod.protocols.datagram import udp
from echod.protocols.discard import discard
from echod.protocols.health import health
from echod.protocols.line import line
from echod.protocols.netstring import netstring
from echod.protocols.prefixed import dns, int8, int32
from echod.protocols.raw import raw
from echod.protocols.upper import upper
from echod.protocols.whoami import whoami
from echod.startup import StoppedEarly

__all__ = ["BUILTIN", "GROUP", "Offer", "Registry", "discover", "verify"]

#: The group of entry points, each named as the protocol that its maker makes.
GROUP = "echod.protocols"

BUILTIN: tuple[IProtocolMaker, ...] = (
    *(raw, line, dns, int8, int32, netstring),
    *(udp, discard, chargen, daytime, time, whoami, upper, health, admin),
)
#: What a maker can be, in the words of its interface.
KINDS = (IStreamProtocolMaker, IDatagramProtocolMaker)
_OWN = f"twisted-echod {__version__}"


@dataclass(frozen=True)
class Offer:
    """
    An entry point, not loaded yet.

    :ivar source: the distribution and its version.
    :ivar load: returns the maker, or raises whatever its module raises.
    """

    name: str
    source: str
    load: Callable[[], Any]


class Registry:
    """
    Protocol makers by name.

    :param problems: lines about what could not be looked at.
    :ivar problems: those, and a line for each offer that could not be taken.
    """

    def __init__(
        self,
        makers: Iterable[IProtocolMaker] = BUILTIN,
        offers: Iterable[Offer] = (),
        problems: Iterable[str] = (),
    ) -> None:
        self._makers = {maker.name: maker for maker in makers}
        self._sources = dict.fromkeys(self._makers, _OWN)
        self.problems = list(problems)
        self._broken: dict[str, str] = {}
        for offer in offers:
            self._take(offer)

    def _take(self, offer: Offer) -> None:
        try:
            maker = self._load(offer)
        except (KeyboardInterrupt, StoppedEarly):
            raise
        except BaseException as error:
            # SystemExit too: a module that ends the program is as broken as any.
            why = str(error) if isinstance(error, ConfigurationError) else whatFailed(error)
            problem = oneLine(f"protocol {offer.name!r} of {offer.source} is left out: {why}")
            self.problems.append(problem)
            self._broken.setdefault(offer.name, problem)
        else:
            self._makers[offer.name] = maker
            self._sources[offer.name] = offer.source

    def _load(self, offer: Offer) -> IProtocolMaker:
        if offer.name in self._makers:
            raise ConfigurationError(f"{self._sources[offer.name]} has that name already")
        maker: IProtocolMaker = offer.load()
        verify(maker, offer.name)
        return maker

    def get(self, name: str, place: str) -> IProtocolMaker:
        """
        The maker called ``name``.

        :param place: where the name was written, for the message.
        :raises ConfigurationError: if there is none, or only a broken one.
        """
        if name in self._makers:
            return self._makers[name]
        if name in self._broken:
            raise ConfigurationError(f"{place}: {self._broken[name]}")
        known = ", ".join(sorted(self._makers))
        raise ConfigurationError(f"{place}: no protocol {name!r} (there are: {known})")

    # Any: their type is the maker's own.
    def settings(
        self, maker: IProtocolMaker, options: Mapping[str, Any], place: str, *, strict: bool
    ) -> Any:
        """
        A maker's typed settings of plain values; ``None`` for one that has none.

        :param strict: with ``False`` text is read as a number, or as a list with commas, where one
            is wanted.
        :raises ConfigurationError: see `echod.config.conversion.convert`.
        """
        if maker.options is None:
            if options:
                raise ConfigurationError(f"{place}: protocol {maker.name!r} has no options")
            return None
        try:
            plain = options if strict else splitLists(options, maker.options)
            return convert(plain, maker.options, place, strict=strict)
        except (ConfigurationError, StoppedEarly):
            raise
        except BaseException as error:
            # Its class is the plugin's, and may do more than msgspec knows of.
            raise ConfigurationError(f"{place}: {whatFailed(error)}") from error

    def describe(self) -> str:
        """Every protocol with its options, as ``--list-protocols`` prints it."""
        lines = []
        for maker in self._makers.values():
            lines.append(f"{maker.name}  {maker.description}  ({self._sources[maker.name]})")
            lines.extend(f"    {key} = {value}" for key, value in maker.defaults.items())
            lines.extend(_describeOptions(maker))
        return "\n".join(lines)


def discover() -> Registry:
    """
    All there is in this environment: echod's own first, others by their distributions.

    A distribution whose entry points cannot be read, whosever they are, is left out with a line.
    """
    names: dict[str, str] = {}
    problems = []
    for found in distributions():
        try:
            if _offered(found):
                names.setdefault(re.sub(r"[-_.]+", "-", found.name).lower(), found.name)
        except Exception as error:
            problems.append(
                oneLine(
                    f"{_called(found)} is left out: its entry points cannot be read:"
                    f" {whatFailed(error)}"
                )
            )
    offers = [
        Offer(point.name, f"{first.name} {first.version}", point.load)
        # Of several with one name, the first on the path is the one that is imported.
        for first in map(distribution, names.values())
        for point in _offered(first)
    ]
    return Registry(
        offers=sorted(offers, key=lambda offer: (offer.source, offer.name)), problems=problems
    )


def _offered(found: Distribution) -> list[EntryPoint]:
    return [point for point in found.entry_points if point.group == GROUP]


def _called(found: Distribution) -> str:
    with suppress(Exception):
        if found.name:
            return f"distribution {found.name}"
    return f"a distribution in {found.locate_file('')}"


# Any: it may be anything, until it has been looked at.
def verify(maker: Any, name: str) -> None:
    """
    Check a maker against `IProtocolMaker`, and what an interface cannot say.

    :raises ConfigurationError: what is wrong.
    """
    kinds = [kind for kind in KINDS if kind.providedBy(maker)]
    if not kinds:
        raise ConfigurationError(
            f"{maker!r} provides neither IStreamProtocolMaker nor IDatagramProtocolMaker"
        )
    for kind in kinds:
        _checkKind(maker, kind)
    if not isinstance(maker.name, str) or not re.fullmatch("[a-z][a-z0-9-]*", maker.name):
        raise ConfigurationError(f"its name {maker.name!r} does not match [a-z][a-z0-9-]*")
    if maker.name != name:
        raise ConfigurationError(f"its name is {maker.name!r}; name its entry point so")
    if not isinstance(maker.description, str) or not maker.description.isprintable():
        raise ConfigurationError(f"its description {maker.description!r} is not one line")
    if not isinstance(maker.defaults, Mapping):
        raise ConfigurationError(f"its defaults {maker.defaults!r} are no mapping")
    convert(maker.defaults, Limits, "defaults")
    if maker.options is None:
        return
    if not (isinstance(maker.options, type) and issubclass(maker.options, msgspec.Struct)):
        raise ConfigurationError(f"its options {maker.options!r} are no msgspec.Struct class")
    if not maker.options.__struct_config__.forbid_unknown_fields:
        raise ConfigurationError(
            "its options take unknown fields; declare them with forbid_unknown_fields=True"
        )
    # Every option needs a default, and a type that can be told.
    convert({}, maker.options, "options")
    _describeOptions(maker)


# Any: an interface, which is no type to a checker.
def _checkKind(maker: object, kind: Any) -> None:
    """Check that a maker has what ``kind`` names, and that its method can be called."""
    problems: Sequence[Exception] = ()
    try:
        verifyObject(kind, maker)
    except Invalid as error:
        # One, or several in one.
        problems = getattr(error, "exceptions", (error,))
    # A method that takes the settings alone is as good; zope.interface does not think so.
    others = [each for each in problems if not isinstance(each, BrokenMethodImplementation)]
    if others:
        raise ConfigurationError("; ".join(map(str, others)))
    name = "makeFactory" if kind is IStreamProtocolMaker else "makeDatagram"
    if not canCallMaker(getattr(maker, name)):
        raise ConfigurationError(f"its {name} takes neither (settings) nor (settings, context)")


def _describeOptions(maker: IProtocolMaker) -> list[str]:
    if maker.options is None:
        return []
    return [_describeOption(field) for field in msgspec.structs.fields(maker.options)]


def _describeOption(field: msgspec.structs.FieldInfo) -> str:
    # Any: as in `echod.config.conversion`.
    info: Any = msgspec.inspect.type_info(field.type)
    words = []
    while isinstance(info, msgspec.inspect.Metadata):
        words.append((info.extra_json_schema or {}).get("description", ""))
        info = info.type
    kind = type(info).__name__.removesuffix("Type").lower()
    value = field.default
    if value is msgspec.NODEFAULT:
        value = field.default_factory()
    default = msgspec.json.encode(value).decode()
    described = next(filter(None, words), "")
    return f"    options.{field.encode_name}: {kind} = {default}  {described}".rstrip()
