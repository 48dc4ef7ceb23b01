"""A real `StreamListener` on a reactor whose turns are the test's: `Served`."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from zope.interface import implementer

from echod.config.endpoints import Endpoint, TCPEndpoint
from echod.config.limits import Limits
from echod.config.tls_settings import TLSSettings
from echod.connection.connection import Connection
from echod.connection.states import ENDS, Reason
from echod.connection.sweep import TICK, Sweep
from echod.protocols.raw import RawOptions, raw
from echod.server.listener import ListenerPlan
from echod.server.stream_listener import StreamListener
from echod.testing import Loop, PlainContext
from echod.tls.context import ServerTLS
from echod.transports.layers import Layer, ProxyLayer, TLSLayer
from echod.wire.networks import Networks

__all__ = ["ECHO", "Served"]

#: A protocol's maker and its options.
ECHO = (raw, RawOptions())
LOOPBACK = TCPEndpoint("127.0.0.1", 0)
#: Seconds until what must happen has not happened.
PATIENCE = 20.0


@implementer(ILogObserver)
class Served:
    """
    Until the ``with`` block ends.

    :param tls: keys of `TLSSettings`; nothing of TLS without any.
    :param protocol: a maker, and its options.
    :param proxy: whether a PROXY header must come first.
    :param buffers: bytes of the kernel's buffers of each connection.
    :param outer: layers outside of these.
    :param endpoint: where it listens.
    :ivar lines: what it has logged, one text each.
    """

    def __init__(
        self,
        tls: dict[str, Any] | None,
        protocol: tuple[Any, Any] = ECHO,
        *,
        limits: Limits | None = None,
        proxy: bool = False,
        buffers: int | None = None,
        logPayload: bool = False,
        outer: Sequence[Layer] = (),
        endpoint: Endpoint = LOOPBACK,
    ) -> None:
        maker, options = protocol
        self.loop = Loop()
        self.sweep = Sweep(self.loop, self.loop.seconds)
        self.security = None if tls is None else ServerTLS(TLSSettings(**tls))
        self.listener = StreamListener(
            ListenerPlan(
                place="test",
                maker=maker,
                endpoint=endpoint,
                limits=limits or Limits(),
                options=options,
                layers=[
                    *outer,
                    *([ProxyLayer(Networks(["127.0.0.1"], ()))] if proxy else []),
                    *([] if self.security is None else [TLSLayer(self.security)]),
                ],
            ),
            self.loop,
            self.sweep,
            PlainContext(),
        )
        self.listener.setLogging(True, logPayload)
        self._buffers = buffers
        self.lines: list[str] = []

    def __call__(self, event: LogEvent) -> None:
        self.lines.append(formatEvent(event))

    def __enter__(self) -> Served:
        globalLogPublisher.addObserver(self)
        self.listener.privilegedStartService()
        self.listener.startService()
        self.sweep.start()
        if self._buffers is not None:
            skt = self.listener._port.socket
            skt.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._buffers)
            skt.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._buffers)
        return self

    def __exit__(self, *exception: object) -> None:
        self.listener.abandon()
        for connection in self.connections:
            connection.abort(Reason.DRAIN)
        self.rest()
        globalLogPublisher.removeObserver(self)
        unforeseen = [each for each in self.listener.totals.ends if each[1] not in ENDS[each[0]]]
        assert unforeseen == [], "metrics have no series for this"

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        address = self.listener.getHost()
        return address.host, address.port

    @property
    def connections(self) -> list[Connection]:
        """Those that are not gone, the oldest first."""
        return list(self.listener._live)

    @property
    def connection(self) -> Connection:
        """The one that there is, once it is there."""
        self.until(lambda: self.connections, "a connection")
        (connection,) = self.connections
        return connection

    def counters(self) -> dict[str, Any]:
        """See `StreamListener.counters`."""
        return self.listener.counters()

    @property
    def closed(self) -> dict[str, int]:
        """How many connections are gone, by reason."""
        found: dict[str, int] = self.counters()["closed"]
        return found

    def refusals(self) -> list[str]:
        """What the lines about those who were turned away say; each names one for an example."""
        self.advance(1.1)
        told = [line.split("(tls) ")[-1] for line in self.lines if line.startswith("refused ")]
        assert all(" example=" in line for line in told)
        return [line.partition(" example=")[0] for line in told]

    def told(self, word: str) -> str:
        """The one line that begins with ``word``."""
        (line,) = [line for line in self.lines if line.startswith(f"{word} ")]
        return line

    def renew(self) -> None:
        """
        Read the files of TLS again, for connections that are still to come.

        :raises ConfigurationError: as `ServerTLS`; nothing has changed then.
        """
        assert self.security is not None
        self.security = ServerTLS(self.security.settings)
        plan = self.listener.plan
        others = [layer for layer in plan.layers if not isinstance(layer, TLSLayer)]
        layers = [*others, TLSLayer(self.security)]
        self.listener.renew(msgspec.structs.replace(plan, layers=layers))

    def turn(self) -> bool:
        """One turn, of a millisecond if there is nothing to do."""
        return self.loop.turn(0.001)

    def rest(self) -> None:
        """Turns until nothing has happened for some milliseconds."""
        idle = 0
        deadline = time.monotonic() + PATIENCE
        while idle < 5:
            assert time.monotonic() < deadline, "it spins"
            idle = 0 if self.turn() else idle + 1

    def until(self, condition: Callable[[], object], what: str = "it") -> None:
        """Turns until ``condition`` is true."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"{what} did not come about"
            self.turn()

    def gone(self) -> None:
        """
        See all connections go, within two seconds of the loop's.

        :raises AssertionError: one is still there.
        """
        for _ in range(20):
            self.rest()
            if not self.connections:
                return
            self.advance(0.1)
        raise AssertionError(f"still there: {[one.state for one in self.connections]}")

    def advance(self, seconds: float) -> None:
        """Let time pass, tick by tick, with all that it brings about."""
        for _ in range(round(seconds / TICK)):
            self.loop.advance(TICK)
            for _ in range(1000):
                if not self.loop.turn():
                    break
