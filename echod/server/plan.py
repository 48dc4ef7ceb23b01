"""
A configuration made into listener plans, and refused where it cannot work.

`plan` joins the file, the command line, the registry and the descriptor limit.  A `Plan` is data:
nothing is bound here, and ``--check-config`` stops at one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from echod.config.endpoints import (
    DescriptorEndpoint,
    Endpoint,
    SystemdEndpoint,
    TCPEndpoint,
    UDPEndpoint,
    UNIXEndpoint,
    overlap,
    parseEndpoint,
)
from echod.config.limits import Limits
from echod.config.settings import Configuration, resolveLimits
from echod.errors import ConfigurationError
from echod.interfaces import IDatagramProtocolMaker, IProtocolMaker, IStreamProtocolMaker
from echod.server.descriptors import fitDescriptors
from echod.server.listener import ListenerPlan
from echod.server.registry import Registry
from echod.server.socket_activation import PassedSockets
from echod.transports.layers import LAYERS, AskedFor, Layer

__all__ = ["ListenerRequest", "Plan", "plan", "requestsOf"]

#: Where protocols with ``loopback`` are served.
_LOOPBACK = "127.0.0.1"
#: What kinds of endpoints there are, and what a protocol must provide for each.
_KINDS: dict[type[Endpoint], tuple[str, Any]] = {
    TCPEndpoint: ("streams", IStreamProtocolMaker),
    UDPEndpoint: ("datagrams", IDatagramProtocolMaker),
    UNIXEndpoint: ("streams", IStreamProtocolMaker),
    # Either, until somebody looks at the socket.
    DescriptorEndpoint: ("sockets", IProtocolMaker),
    SystemdEndpoint: ("sockets", IProtocolMaker),
}

#: Limits that ask for the client's address.
_ABOUT_SOURCES = ("allow", "deny", "max_per_source", "new_per_second")

#: Seconds of `Limits.stall_timeout` below which a note says what that does to slow readers: TCP has
#: shown nothing of one that reads 10 kB a second for 13 s (docs/architecture.md, "Time").
SHORTEST_STALL = 20

#: Where no socket was passed; those that are open anyhow can be adopted.
_NOTHING_PASSED = PassedSockets()

#: What is served when nothing is asked for.
DEFAULT_LISTENERS = (("raw", 1234), ("line", 1235), ("dns", 1236))


class ListenerRequest(Struct, frozen=True, kw_only=True):
    """
    A listener as somebody asked for it, on the command line or in a file.

    :ivar place: where it was written, for messages.
    :ivar options: of its protocol, plain values.
    :ivar limits: keys of `Limits` given for this listener alone.
    :ivar layers: the settings of each layer that is asked for, by its name.
    """

    place: str
    protocol: str
    endpoint: str
    options: Mapping[str, Any] = {}
    limits: Mapping[str, Any] = {}
    layers: Mapping[str, Any] = {}


class Plan(Struct, frozen=True, kw_only=True):
    """
    A whole daemon, checked and ready to be built.

    :ivar byDefault: whether nobody has asked for listeners, and these are the default ones.
    :ivar insight: whether a protocol wants to tell of connections that are gone.
    :ivar asked: the listeners with the ``max_connections`` that were asked for; ``listeners`` have
        those that ``descriptorLimit`` has room for.
    """

    listeners: Sequence[ListenerPlan]
    asked: Sequence[ListenerPlan]
    descriptorLimit: int
    byDefault: bool = False
    insight: bool = False
    drainTimeout: float
    logConnections: bool
    drainDelay: float = 0.0
    logPayload: bool = False
    logFormat: str = "text"
    notes: Sequence[str] = ()

    def holding(self, held: int) -> Plan:
        """
        The same with less room: connections of earlier listeners have ``held`` descriptors.

        :raises ConfigurationError: there is not enough.
        """
        _, before = _fit(self.asked, self.descriptorLimit)
        listeners, notes = _fit(self.asked, self.descriptorLimit, held)
        others = [note for note in self.notes if note not in before]
        return msgspec.structs.replace(self, listeners=listeners, notes=[*others, *notes])


def requestsOf(configuration: Configuration, interface: str) -> list[ListenerRequest]:
    """The listeners of a file, or the default ones on ``interface`` where it has none."""
    if configuration.listener is None:
        return [
            ListenerRequest(
                place="--interface",
                protocol=name,
                endpoint="tcp:{}:interface={}".format(port, interface.replace(":", r"\:")),
            )
            for name, port in DEFAULT_LISTENERS
        ]
    return [
        ListenerRequest(
            place=f"$.listener[{index}]",
            protocol=table["protocol"],
            endpoint=table["endpoint"],
            options=table.get("options", {}),
            limits=table,
            layers=table,
        )
        for index, table in enumerate(configuration.listener)
    ]


def plan(
    configuration: Configuration,
    requests: Sequence[ListenerRequest],
    registry: Registry,
    descriptorLimit: int,
    *,
    interface: str = "127.0.0.1",
    options: Mapping[str, Mapping[str, str]] | None = None,
    overrides: Mapping[str, Any] | None = None,
    passed: PassedSockets | None = _NOTHING_PASSED,
    byDefault: bool = False,
    directory: str = "",
    layerKinds: Sequence[type[Layer]] = LAYERS,
) -> Plan:
    """
    Check everything that can be checked without binding.

    An endpoint of passed sockets becomes a listener for each of them.

    :param interface: the address for endpoints that give none; not for protocols with
        ``loopback`` (`IStreamProtocolMaker`).
    :param options: of the command line, by protocol: text, over the requests' own options.
    :param overrides: limits of the command line: over ``[defaults]``, under a listener's own.
    :param passed: the sockets that there are; all must be used.  With ``None`` nobody looks, and
        a plan with endpoints of passed sockets can be shown, but not served.
    :param byDefault: see `Plan`.
    :param directory: where relative paths begin, as long as the daemon runs.
    :param layerKinds: the layers that there are, the outermost first.
    :raises ConfigurationError: in one line, naming the place.
    """
    options = options or {}
    overrides = overrides or {}
    asked = {request.protocol for request in requests}
    for name in options:
        maker = registry.get(name, f"--option {name}")
        if name not in asked:
            raise ConfigurationError(
                f"--option {name}: no listener serves {maker.name}; add one with --listen"
            )
    listeners: list[ListenerPlan] = []
    taken: dict[Endpoint, str] = {}
    for request, maker, endpoint, descriptor in _locate(
        requests, registry, interface, passed, directory
    ):
        place = request.place
        _take(endpoint if descriptor is None else DescriptorEndpoint(descriptor), place, taken)
        settings = registry.settings(maker, request.options, _at(place, "options"), strict=True)
        if maker.name in options:
            settings = registry.settings(
                maker,
                # As both were written: what comes of them may have other names and types.
                {**request.options, **options[maker.name]},
                f"--option {maker.name}",
                strict=False,
            )
        layers = _layers(request, endpoint, directory, layerKinds)
        _checkSources(request, endpoint, layers)
        limits = {
            f"protocol {maker.name}": maker.defaults,
            "$.defaults.max_connections": configuration.defaults,
            "--max-connections": overrides,
            _at(place, "max_connections"): request.limits,
        }
        places = [where for where, found in limits.items() if "max_connections" in found]
        listeners.append(
            ListenerPlan(
                place=place,
                maker=maker,
                endpoint=endpoint,
                limits=resolveLimits(*limits.values()),
                options=settings,
                maximumPlace=places[-1] if places else None,
                layers=layers,
                descriptor=descriptor,
            )
        )
    if passed is not None:
        passed.checkUsed([listener.descriptor for listener in listeners])
    insight = any(getattr(listener.maker, "insight", False) for listener in listeners)
    fitted, notes = _fit(listeners, descriptorLimit)
    return Plan(
        insight=insight,
        listeners=fitted,
        asked=listeners,
        descriptorLimit=descriptorLimit,
        byDefault=byDefault,
        drainDelay=configuration.drainDelay,
        drainTimeout=configuration.drainTimeout,
        logConnections=configuration.logConnections,
        logPayload=configuration.logPayload,
        logFormat=configuration.logFormat,
        notes=[
            *registry.problems,
            *notes,
            *_stalls(listeners),
            # Once each: several sockets may have come of one place.
            *dict.fromkeys(
                f"{listener.place}: {note}"
                for listener in listeners
                for layer in listener.layers
                for note in layer.notes
            ),
            *(["log_payload is on: what clients send is in the log"] * configuration.logPayload),
        ],
    )


def _stalls(listeners: Sequence[ListenerPlan]) -> list[str]:
    """What is to be said of deadlines that cut who reads slowly; one line for each value."""
    short = {
        listener.limits.stallTimeout
        for listener in listeners
        if not isinstance(listener.endpoint, UDPEndpoint)
        and 0 < listener.limits.stallTimeout < SHORTEST_STALL
    }
    return [
        f"stall_timeout is {seconds:g} s: a client that reads slowly is cut, because of what it"
        f" reads nothing may be seen for so long; give {SHORTEST_STALL} s or more"
        for seconds in sorted(short)
    ]


def _layers(
    request: ListenerRequest, endpoint: Endpoint, directory: str, kinds: Sequence[type[Layer]]
) -> list[Layer]:
    """What the listener's table and its endpoint ask for, in the order of ``kinds``."""
    asked = (
        kind.made(
            AskedFor(
                settings=request.layers.get(kind.name),
                place=_at(request.place, kind.name),
                endpoint=endpoint,
                written=request.endpoint,
                directory=directory,
            )
        )
        for kind in kinds
    )
    return [layer for layer in asked if layer is not None]


def _checkSources(request: ListenerRequest, endpoint: Endpoint, layers: Sequence[Layer]) -> None:
    """Refuse limits on sources where clients have no addresses."""
    if isinstance(endpoint, UNIXEndpoint) and not any(layer.tellsPeer for layer in layers):
        for key in _ABOUT_SOURCES:
            if request.limits.get(key):
                raise ConfigurationError(
                    f"{_at(request.place, key)}: clients of {request.endpoint} have no address;"
                    " the mode of its file says who may come"
                )


def _locate(
    requests: Sequence[ListenerRequest],
    registry: Registry,
    interface: str,
    passed: PassedSockets | None,
    directory: str,
) -> Iterator[tuple[ListenerRequest, Any, Endpoint, int | None]]:
    """Each request with its maker and its endpoint, or each of the sockets that it means."""
    for request in requests:
        maker = registry.get(request.protocol, _at(request.place, "protocol"))
        where = _at(request.place, "endpoint")
        located: list[tuple[Endpoint, int | None]]
        try:
            here = _LOOPBACK if getattr(maker, "loopback", False) else interface
            endpoint = parseEndpoint(request.endpoint, here)
            if isinstance(endpoint, UNIXEndpoint):
                endpoint = endpoint.within(directory)
            located = [(endpoint, None)] if passed is None else passed.find(endpoint)
        except ConfigurationError as error:
            raise ConfigurationError(f"{where}: {error}") from error
        for endpoint, descriptor in located:
            kind, needs = _KINDS[type(endpoint)]
            if not needs.providedBy(maker):
                what = "" if descriptor is None else f" (descriptor {descriptor}, {endpoint})"
                raise ConfigurationError(
                    f"{where}: {request.endpoint}{what} is for {kind}, and protocol"
                    f" {maker.name!r} is not; choose another"
                )
            yield request, maker, endpoint, descriptor


def _take(endpoint: Endpoint, place: str, taken: dict[Endpoint, str]) -> None:
    """Refuse an endpoint that another listener has, or has in part."""
    for other, owner in taken.items():
        if overlap(endpoint, other):
            what = _where(endpoint)
            how = "is taken by" if endpoint == other else f"and {_where(other)} overlap: see"
            raise ConfigurationError(
                f"{_at(place, 'endpoint')}: {what} {how} {owner}; give it another"
            )
    taken[endpoint] = place


def _where(endpoint: Endpoint) -> str:
    """Without the kind, where that does not tell what the rest means."""
    if isinstance(endpoint, DescriptorEndpoint | SystemdEndpoint):
        return str(endpoint)
    return str(endpoint).partition(" ")[2]


def _at(place: str, key: str) -> str:
    """A key's place: within a table of a file it has one of its own."""
    return f"{place}.{key}" if place.startswith("$") else place


def _fit(
    listeners: Sequence[ListenerPlan], descriptorLimit: int, held: int = 0
) -> tuple[list[ListenerPlan], list[str]]:
    # One of datagrams has no connections.
    wanted = [
        (0, True)
        if isinstance(listener.endpoint, UDPEndpoint)
        else (listener.limits.maxConnections, listener.maximumPlace is not None)
        for listener in listeners
    ]
    try:
        maxima = fitDescriptors(wanted, descriptorLimit, held)
    except ConfigurationError as error:
        places = (listener.maximumPlace for listener in listeners)
        where = next(filter(None, places), "max_connections")
        raise ConfigurationError(f"{where}: {error}") from error
    fitted: list[ListenerPlan] = []
    notes = set()
    for listener, maximum in zip(listeners, maxima, strict=True):
        if 0 < maximum != listener.limits.maxConnections:
            limits: Limits = msgspec.structs.replace(listener.limits, maxConnections=maximum)
            listener = msgspec.structs.replace(listener, limits=limits)
            notes.add(
                f"max_connections is {maximum} a listener:"
                f" the descriptor limit of {descriptorLimit} holds no more"
            )
        fitted.append(listener)
    return fitted, sorted(notes)
