"""`echod.kit.context_parameter`: whatever has a parameter ``context`` is given the context."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from twisted.internet.protocol import DatagramProtocol, Factory

from echod.interfaces import IDatagramProtocolMaker, IStreamProtocolMaker, ServerContext
from echod.kit import (
    BothMaker,
    Connection,
    ConnectionMaker,
    DatagramMaker,
    FactoryMaker,
    MessageMaker,
    ProtocolOptions,
    Reason,
    Stream,
    StreamMaker,
)
from echod.kit.context_parameter import canCallMaker, given, takesContext
from echod.testing import Link, PlainContext, memoryLink
from echod.wire.framing import lines


class Word(ProtocolOptions, frozen=True):
    """One option."""

    word: str = "now"


def plain(first: object) -> None:
    """Takes none."""


def keyword(first: object, *, context: ServerContext) -> None:
    """Takes one by its name alone."""


def positional(context: ServerContext, /) -> None:
    """Has it without a name."""


def anything(*context: object, **others: object) -> None:
    """Names nothing."""


class Told(Connection):
    """Says what it was told, then ends."""

    def __init__(self, settings: Word | None = None, *, context: ServerContext) -> None:
        super().__init__()
        self._line = telling(settings, context)

    def begun(self) -> None:
        self.reply(self._line)
        self.end(Reason.QUIT)


def telling(settings: Word | None, context: ServerContext) -> bytes:
    """What all of them say."""
    word = "" if settings is None else f" {settings.word}"
    return f"{context.health}{word}\n".encode()


@pytest.mark.parametrize(
    ("function", "takes"),
    [
        (plain, False),
        (keyword, True),
        (positional, False),
        (anything, False),
        (Told, True),
        (Connection, False),
        (partial(keyword, 1), True),
        (partial(keyword, context=PlainContext()), True),
        (lambda context: context, True),
        (bytes.upper, False),
        (max, False),
    ],
)
def test_whoTakesIt(function: Callable[..., Any], takes: bool) -> None:
    """A parameter of that name, which can be given by its name."""
    assert takesContext(function) is takes


def test_withoutAContext() -> None:
    """Who needs one and gets none says how to give it."""
    assert given(None, plain) is plain
    with pytest.raises(TypeError, match=r"needs a context: call makeFactory\(settings, context\)"):
        given(None, keyword)


@pytest.mark.parametrize(
    ("method", "can"),
    [
        (lambda settings: None, True),
        (lambda settings, context: None, True),
        (lambda settings, *, context: None, True),
        (lambda settings, context=None: None, True),
        (lambda *everything: None, True),
        (lambda: None, False),
        (lambda settings, world: None, False),
        (lambda settings, context, world: None, False),
        (max, True),
    ],
)
def test_whatAMakersMethodMayTake(method: Callable[..., Any], can: bool) -> None:
    """The settings alone, or the context behind them."""
    assert canCallMaker(method) is can


async def _tell(stream: Stream, *settings: Word, context: ServerContext) -> None:
    await stream.write(telling(settings[0] if settings else None, context))


def _answer(line: bytes, *settings: Word, context: ServerContext) -> bytes:
    return telling(settings[0] if settings else None, context).rstrip()


def _factory(*settings: Word, context: ServerContext) -> Factory:
    return Factory.forProtocol(lambda: Told(*settings, context=context))


MAKERS: list[Callable[[Any], IStreamProtocolMaker]] = [
    lambda options: StreamMaker("told", "x", _tell, options),
    lambda options: MessageMaker("told", "x", lines, _answer, options),
    lambda options: FactoryMaker("told", "x", _factory, options),
    lambda options: ConnectionMaker("told", "x", Told, options),
    lambda options: BothMaker("told", "x", Told, options),
]


def serve(maker: IStreamProtocolMaker, context: ServerContext) -> Link:
    settings = None if maker.options is None else maker.options()
    factory = maker.makeFactory(settings, context)
    return memoryLink(factory.buildProtocol(None))


@pytest.mark.parametrize("options", [None, Word])
@pytest.mark.parametrize("make", MAKERS)
def test_everyMakerOfTheKit(make: Callable[[Any], IStreamProtocolMaker], options: Any) -> None:
    """The context comes beside the settings, and tells of now."""
    maker = make(options)
    context = PlainContext()
    for health in ("ready", "draining"):
        context.draining = health == "draining"
        link = serve(maker, context)
        link.send(b"how are you?\n")
        link.finish()
        assert link.readAll() == f"{health}{' now' if options else ''}\n".encode()
        link.pump()


class Asked(DatagramProtocol):
    """Keeps what it was given."""

    def __init__(self, *settings: Word, context: ServerContext) -> None:
        self.given = (settings, context)


@pytest.mark.parametrize("options", [None, Word])
@pytest.mark.parametrize(
    "make",
    [
        lambda options: DatagramMaker("asked", "x", Asked, options),
        lambda options: BothMaker("asked", "x", Told, options, datagram=Asked),
    ],
)
def test_datagrams(make: Callable[[Any], IDatagramProtocolMaker], options: Any) -> None:
    """Those that make what answers datagrams, too."""
    context = PlainContext()
    settings = None if options is None else options()
    made = make(options).makeDatagram(settings, context)
    assert made.given == (() if settings is None else (settings,), context)
