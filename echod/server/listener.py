"""
What one listener is to be, and what those of streams and of datagrams do alike.

`ListenerPlan` is data, made by `echod.server.plan` before anything is bound.  `Listener` is the
Twisted service made of it: `echod.server.stream_listener.StreamListener` serves streams,
`echod.server.datagram_listener.DatagramListener` datagrams.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any, TypeVar

from msgspec import Struct
from twisted.application.service import Service
from twisted.logger import Logger

from echod.config.endpoints import Endpoint
from echod.config.limits import Limits
from echod.connection.connection import Connection
from echod.connection.rows import Ended
from echod.errors import ConfigurationError, EchodError, whatFailed
from echod.insight.refusals import Refusals
from echod.insight.shelf import Shelf
from echod.interfaces import IProtocolMaker, ListenerFacts, ServerContext
from echod.kit.context_parameter import callMaker
from echod.measurements import DatagramMeasurements, StreamMeasurements
from echod.startup import StoppedEarly
from echod.tls.facts import CertificateExpiry
from echod.transports.layers import Layer
from echod.transports.tcp import TCPPort
from echod.transports.udp import UDPPort
from echod.transports.unix import UNIXListeningPort

__all__ = ["Likeness", "Listener", "ListenerPlan"]

_log = Logger()

_Result = TypeVar("_Result")
_Layer = TypeVar("_Layer", bound=Layer)


class Likeness(IntEnum):
    """How much of a listener stays if it goes on as another."""

    #: It cannot: it is somewhere else, or the port is its own.
    NONE = 0
    #: Its protocol, and which layers there are; at a given port not even that.
    KIND = 1
    BUT_LIMITS = 2
    ALL = 3


class ListenerPlan(Struct, frozen=True, kw_only=True):
    """
    What one listener is to be.

    :ivar place: where it is written, for messages: ``$.listener[0]`` or ``--port``.
    :ivar maker: an `IStreamProtocolMaker` or `IDatagramProtocolMaker`, as the endpoint needs.
    :ivar maximumPlace: where just this ``max_connections`` was asked for, if it was.
    :ivar layers: what is to be between sockets and the protocol, the outermost first.
    :ivar descriptor: of the socket to adopt, which is at ``endpoint``; ``None`` makes one.
    """

    place: str
    maker: IProtocolMaker
    endpoint: Endpoint
    limits: Limits
    options: Struct | None
    maximumPlace: str | None = None
    layers: Sequence[Layer] = ()
    descriptor: int | None = None

    def layer(self, kind: type[_Layer]) -> _Layer | None:
        """The layer of this kind, if there is to be one."""
        return next((layer for layer in self.layers if isinstance(layer, kind)), None)

    @property
    def expiries(self) -> list[CertificateExpiry]:
        """Until when each of its certificates is good; those for datagrams have none."""
        return [expiry for layer in self.layers for expiry in layer.expiries]

    def describe(self, endpoint: Endpoint, *traits: str) -> str:
        """
        ``raw tcp 127.0.0.1:1234 (adopted, tls)``: the protocol, where, and what is particular.

        :param endpoint: as the system gave it.
        :param traits: more of them, behind `traits`.
        """
        traits = (*self.traits, *traits)
        told = f" ({', '.join(traits)})" if traits else ""
        return f"{self.maker.name} {endpoint}{told}"

    @property
    def traits(self) -> list[str]:
        """What is particular: ``adopted``, and the layers (``tls``, ``proxy``)."""
        adopted = ["adopted"] * (self.descriptor is not None)
        return [*adopted, *(layer.name for layer in reversed(self.layers))]

    def likeness(self, other: ListenerPlan) -> Likeness:
        """
        How alike they are, for a listener of this one to go on as ``other``.

        A port that the system chose (port 0) goes on as the same kind of listener, or is closed:
        its clients have learnt of it as of that.  What is in files of TLS does not count.
        """
        if (self.endpoint, self.descriptor) != (other.endpoint, other.descriptor):
            return Likeness.NONE
        if self._terms() == other._terms():
            return Likeness.ALL if self.limits == other.limits else Likeness.BUT_LIMITS
        chosen = getattr(self.endpoint, "port", None) == 0
        return Likeness.NONE if chosen and self._kind() != other._kind() else Likeness.KIND

    def _kind(self) -> tuple[Any, ...]:
        return self.maker, *(layer.name for layer in self.layers)

    def _terms(self) -> tuple[Any, ...]:
        # The mode of a UNIX socket's file is no part of where it is.
        mode = getattr(self.endpoint, "mode", None)
        layers = [(layer.name, layer.terms()) for layer in self.layers]
        return self.maker, self.options, layers, mode

    def make(self, method: Callable[..., _Result], context: ServerContext) -> _Result:
        """
        What a ``method`` of the maker gives for the options and the context.

        :raises ConfigurationError: it raised.
        """
        return self.trying(lambda: callMaker(method, self.options, context))

    def trying(self, code: Callable[[], _Result]) -> _Result:
        """
        What ``code`` returns, in which the protocol's code runs.

        :raises ConfigurationError: it raised.
        """
        try:
            return code()
        except (EchodError, StoppedEarly):
            raise
        except BaseException as error:
            # SystemExit too: see echod.insight.fault_log.
            raise ConfigurationError(
                f"{self.place}: protocol {self.maker.name!r} cannot be served: {whatFailed(error)}"
            ) from error


class Listener(Service):
    """
    A service that listens at one endpoint, from its start to its end.

    It binds at once and in the caller's sight, because a daemon that cannot listen must not live
    (docs/wire.md O3).  A subclass makes ``_port``, and does in ``_serve`` what depends on the
    address that the system gave it, which ``_unserve`` undoes.
    """

    _port: TCPPort | UNIXListeningPort | UDPPort
    _endpoint: Endpoint

    def __init__(self, plan: ListenerPlan) -> None:
        self._plan = plan
        # As planned, then, once bound, as the system gave it; written by _serve.
        self._endpoint = plan.endpoint
        # Whether it is ready to take over from another one; written by prepareTakeOver, takeOver
        # and abandon.
        self._takeOverPrepared = False
        # Whether it has served since it began, whatever has become of its port.
        self._serving = False

    def _serve(self) -> None:
        """The port listens: do what depends on its address."""
        raise NotImplementedError

    def _unserve(self) -> None:
        """Undo `_serve`: the port is closed, or another listener's."""
        raise NotImplementedError

    #: See `IStreamProtocolMaker`.
    lasts = False
    #: Events of the timeline of each connection; 0: there is none.
    timeline = 0

    @property
    def connectionCount(self) -> int:
        """Connections that have not ended; where there are none, 0."""
        return 0

    @property
    def cutCount(self) -> int:
        """Connections that were still owed bytes when we gave up."""
        return 0

    def drainBegins(self) -> None:
        """All listeners are about to stop; one that `lasts` will be the last."""

    def cut(self) -> None:
        """End whatever is left, at once."""

    def renew(self, plan: ListenerPlan) -> None:
        """Be the same, with what the files of TLS hold now."""
        self._plan = plan

    def observe(self, shelf: Shelf[Ended] | None) -> None:
        """Put connections that are gone there, and keep refusals; with ``None`` do neither."""

    def setLogging(self, connections: bool, payload: bool) -> None:
        """
        Have the log tell of connections, and of what is read, from now on, or not any more.

        Also of the connections that are there.
        """

    def connections(self) -> list[Connection]:
        """Those at its endpoint that have not ended; where there are no connections, none."""
        return []

    @property
    def refusals(self) -> Refusals:
        """How many were turned away at its endpoint, and who."""
        raise NotImplementedError

    def measured(self, name: str) -> StreamMeasurements | DatagramMeasurements:
        """What metrics are made of; ``name`` is what it is called there."""
        raise NotImplementedError

    def counters(self) -> dict[str, Any]:
        """All counters of this listener, as plain values."""
        raise NotImplementedError

    def privilegedStartService(self) -> None:
        """
        Bind, if that has not been done.

        :raises ConfigurationError: see `bind`.
        :raises ListenError: see `bind`.
        """
        if not self._port.connected:
            self.bind()
            self.tellListening()

    def bind(self) -> None:
        """
        Bind, and tell nobody: that is `tellListening`.

        :raises ConfigurationError: the protocol raised.
        :raises ListenError: if the address cannot be had.
        """
        self._plan.trying(self._port.startListening)
        self._begin()

    def tellListening(self) -> None:
        """Say in the log that it is bound."""
        _log.info("listening {listener}", event="listening", listener=self.describe())

    def startService(self) -> None:
        """Bind, unless the privileged hook has: ``twist`` calls this one alone."""
        self.privilegedStartService()
        super().startService()

    def prepareTakeOver(self, other: Listener) -> None:
        """
        Be ready to `takeOver` another listener, which serves on until then; `abandon` undoes it.

        :raises ConfigurationError: the protocol raised.
        """
        self._plan.trying(lambda: self._port.prepareTakeOver(other._port))
        self._takeOverPrepared = True

    def takeOver(self, other: Listener) -> None:
        """
        Go on at the endpoint of another listener, with its socket, after `prepareTakeOver`.

        This does not fail.  Connections stay the other's, under the settings that they began with.
        """
        self._takeOverPrepared = False
        self._port.takeOver(other._port)
        other._finish()
        self._begin()

    def _begin(self) -> None:
        self._finish()
        self._serving = True
        self._serve()

    def _finish(self) -> None:
        if self._serving:
            self._serving = False
            self._unserve()

    def retire(self) -> None:
        """Take nobody any more; who has come already is served, and connections stay."""
        if self._port.connected:
            # At one go: whoever is connected after the queue was served would be reset.
            self._port.serveQueue()
        # Serving it may have ended the port.
        if self._port.connected:
            self._port.close()
        self._finish()

    def abandon(self) -> None:
        """Undo `bind` or `prepareTakeOver`, before anybody was served."""
        if self._takeOverPrepared:
            self._takeOverPrepared = False
            self._port.cancelTakeOver()
            return
        if self._port.connected:
            self._port.giveUp()
        self._finish()

    def neglects(self) -> bool:
        """Whether it should serve, and does not; to be asked now and then."""
        return bool(self.running) and not self._port.connected

    @property
    def listens(self) -> bool:
        """Whether it has its socket."""
        return bool(self._port.connected)

    @property
    def descriptor(self) -> int | None:
        """The number of its socket, if it has one."""
        return self._port.fileno() if self.listens else None

    @property
    def endpoint(self) -> Endpoint:
        """Where it listens, with the port that the system chose."""
        return self._endpoint

    @property
    def plan(self) -> ListenerPlan:
        """What it is."""
        return self._plan

    @property
    def ownTraits(self) -> Sequence[str]:
        """What is particular besides what the plan knows of."""
        return ()

    def describe(self) -> str:
        """``raw tcp 127.0.0.1:1234 (tls)``, with the port that the system chose, and all traits."""
        return self._plan.describe(self._endpoint, *self.ownTraits)

    def facts(self) -> ListenerFacts:
        """What others may know of it."""
        return ListenerFacts(self._plan.maker.name, str(self._endpoint), self.describe())

    # Any: which address it is depends on the endpoint.
    def getHost(self) -> Any:
        """The bound address, as an ``IAddress``."""
        return self._port.getHost()
