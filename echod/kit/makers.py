"""
From what somebody has written to a protocol that listeners can serve, in one expression each.

In the order of how little has to be known: a coroutine (`StreamMaker`), a framing and a function
(`MessageMaker`), an ordinary Twisted factory (`FactoryMaker`), and echod's own way, a subclass of
`Connection` (`ConnectionMaker`).  All are an `IStreamProtocolMaker`; docs/writing-a-protocol.md
shows each.  `DatagramMaker` is for datagrams, `BothMaker` for a protocol that has both kinds.

What they are made of is given the `ServerContext` too, if it has a parameter named ``context``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from msgspec import Struct
from twisted.internet.interfaces import IAddress, IProtocolFactory
from twisted.internet.protocol import DatagramProtocol, Factory
from zope.interface import implementer

from echod.connection.connection import Connection
from echod.connection.flow import SLICE
from echod.interfaces import IDatagramProtocolMaker, IStreamProtocolMaker, ServerContext
from echod.kit.context_parameter import given
from echod.kit.coroutine import StreamConnection
from echod.kit.messages import IN_FLIGHT, Answer, AnsweringConnection
from echod.kit.stream import BUFFER
from echod.wire.framing import Framing

__all__ = [
    "BothMaker",
    "ConnectionFactory",
    "ConnectionMaker",
    "DatagramMaker",
    "FactoryMaker",
    "MessageMaker",
    "StreamMaker",
]

_Made = TypeVar("_Made")


class ConnectionFactory(Factory):
    """Builds a connection for each peer."""

    noisy = False
    protocol = Connection

    def __init__(self, connection: Callable[[], Connection]) -> None:
        self._connection = connection

    def buildProtocol(self, addr: IAddress | None) -> Connection:
        """One connection; its owner is for the listener to set."""
        return self._connection()


def _with(settings: Struct | None, function: Callable[..., _Made]) -> Callable[..., _Made]:
    """``function`` that is given the settings too, after its own argument, if there are any."""
    return function if settings is None else partial(_swapped, function, settings)


def _swapped(function: Callable[..., _Made], settings: Struct, argument: object) -> _Made:
    return function(argument, settings)


def _called(function: Callable[..., _Made], settings: Struct | None) -> _Made:
    return function() if settings is None else function(settings)


def _checkLeast(name: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f"{name} is {value}; it must be {least} at least")


@implementer(IStreamProtocolMaker)
@dataclass(frozen=True)
class StreamMaker:
    """
    A protocol that is a coroutine, on an `echod.kit.stream.Stream`.

    :param handler: ``async def handler(stream)``; with options, ``handler(stream, settings)``.
    :param limit: bytes of input that wait for it; also what it can ask for at once.
    :param savesSYN: see `IStreamProtocolMaker`.
    :raises TypeError: ``handler`` is no coroutine function.
    :raises ValueError: ``limit`` is below 1.
    """

    name: str
    description: str
    handler: Callable[..., Any]
    options: type[Struct] | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    limit: int = BUFFER
    savesSYN: bool = False

    def __post_init__(self) -> None:
        called = getattr(self.handler, "__call__", None)  # noqa: B004  # its type is asked for
        if not (inspect.iscoroutinefunction(self.handler) or inspect.iscoroutinefunction(called)):
            raise TypeError(f"{self.handler!r} is no coroutine function; write it with async def")
        _checkLeast("limit", self.limit, 1)

    def makeFactory(
        self, settings: Struct | None, context: ServerContext | None = None
    ) -> IProtocolFactory:
        """See `IStreamProtocolMaker.makeFactory`."""
        handler = _with(settings, given(context, self.handler))
        return ConnectionFactory(partial(StreamConnection, handler, self.limit))


@implementer(IStreamProtocolMaker)
@dataclass(frozen=True)
class MessageMaker:
    """
    A protocol that answers messages one by one.

    :param framing: one of `echod.wire.framing`: ``lines``, ``int8``, ``int16``, ``int32``,
        ``netstring``, ``fixed(n)``, or ``cutting(…)`` for one of your own.
    :param answer: from a payload to an answer's payload, a Deferred or coroutine of it, or
        ``None``; with options, ``answer(payload, settings)``.
    :param maxLength: bytes of a payload, unless the options have a ``maxLength``.
    :param inFlight: how many messages are being answered at a time, unless the options have an
        ``inFlight``.
    :raises ValueError: ``inFlight`` is below 1 or ``maxLength`` below 0.
    """

    name: str
    description: str
    framing: Framing
    answer: Callable[..., Any]
    options: type[Struct] | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    maxLength: int = SLICE
    inFlight: int = IN_FLIGHT

    def __post_init__(self) -> None:
        _checkLeast("inFlight", self.inFlight, 1)
        _checkLeast("maxLength", self.maxLength, 0)

    def makeFactory(
        self, settings: Struct | None, context: ServerContext | None = None
    ) -> IProtocolFactory:
        """See `IStreamProtocolMaker.makeFactory`."""
        answer: Answer = _with(settings, given(context, self.answer))
        maxLength = getattr(settings, "maxLength", self.maxLength)
        inFlight = getattr(settings, "inFlight", self.inFlight)
        return ConnectionFactory(
            lambda: AnsweringConnection(self.framing(maxLength), answer, inFlight)
        )


@implementer(IStreamProtocolMaker)
@dataclass(frozen=True)
class FactoryMaker:
    """
    A protocol that is an ordinary Twisted factory; `echod.kit.twisted_protocol` says what it gives
    up.

    :param factory: called without an argument, or with the settings if there are options;
        returns an ``IProtocolFactory``.
    """

    name: str
    description: str
    factory: Callable[..., IProtocolFactory]
    options: type[Struct] | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def makeFactory(
        self, settings: Struct | None, context: ServerContext | None = None
    ) -> IProtocolFactory:
        """See `IStreamProtocolMaker.makeFactory`."""
        return _called(given(context, self.factory), settings)


@implementer(IStreamProtocolMaker)
@dataclass(frozen=True)
class ConnectionMaker:
    """
    A protocol that is a `Connection` class: the quickest.

    :param connection: called for each peer, with the settings if there are options.
    :param lasts: see `IStreamProtocolMaker`, as for ``savesSYN``.
    """

    name: str
    description: str
    connection: Callable[..., Connection]
    options: type[Struct] | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    lasts: bool = False
    savesSYN: bool = False

    def makeFactory(
        self, settings: Struct | None, context: ServerContext | None = None
    ) -> IProtocolFactory:
        """See `IStreamProtocolMaker.makeFactory`."""
        arguments = () if settings is None else (settings,)
        return ConnectionFactory(partial(given(context, self.connection), *arguments))


@implementer(IDatagramProtocolMaker)
@dataclass(frozen=True)
class DatagramMaker:
    """
    A protocol for datagrams.

    :param datagram: called for each listener, with the settings if there are options.
    """

    name: str
    description: str
    datagram: Callable[..., DatagramProtocol]
    options: type[Struct] | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def makeDatagram(
        self, settings: Struct | None, context: ServerContext | None = None
    ) -> DatagramProtocol:
        """See `IDatagramProtocolMaker.makeDatagram`."""
        return _called(given(context, self.datagram), settings)


@implementer(IDatagramProtocolMaker)
@dataclass(frozen=True)
class BothMaker(ConnectionMaker):
    """
    A protocol for streams and for datagrams.

    :param datagram: as in `DatagramMaker`.
    """

    datagram: Callable[..., DatagramProtocol] = DatagramProtocol

    def makeDatagram(
        self, settings: Struct | None, context: ServerContext | None = None
    ) -> DatagramProtocol:
        """See `IDatagramProtocolMaker.makeDatagram`."""
        return _called(given(context, self.datagram), settings)
