"""`Reloading`: a service whose plan is changed, on a reactor whose turns are the test's."""

from __future__ import annotations

import gc
import os
import socket
from contextlib import suppress
from typing import Any

from echod.config.settings import Configuration
from echod.server.listener import Listener
from echod.server.plan import ListenerRequest, Plan, plan
from echod.server.registry import Registry, discover
from echod.server.service import EchodService
from echod.testing import Loop
from tests.unit.outer import waitUntil

__all__ = ["Listened", "Reloading", "planOf"]

#: Protocol, endpoint, and limits or other keys of a listener's table.
Listened = tuple[str, str, dict[str, Any]]


def planOf(
    registry: Registry, *listeners: Listened, descriptors: int = 100_000, directory: str = ""
) -> Plan:
    """
    A plan of such listeners.

    :param descriptors: how many there may be.
    :param directory: where relative paths begin.
    """
    requests = [
        ListenerRequest(
            place=f"$.listener[{index}]",
            protocol=protocol,
            endpoint=endpoint,
            limits=table,
            options=table.get("options", {}),
            layers=table,
        )
        for index, (protocol, endpoint, table) in enumerate(listeners)
    ]
    return plan(Configuration(), requests, registry, descriptors, directory=directory)


class Reloading:
    """
    A daemon's listeners in a loop of their own.

    :ivar descriptors: how many there may be.
    :ivar directory: where relative paths begin.
    """

    def __init__(self, registry: Registry | None = None) -> None:
        self.loop = Loop()
        self.service: Any = None
        self.registry = registry or discover()
        self.descriptors = 100_000
        self.directory = ""

    def start(self, *listeners: Listened) -> None:
        """Bind."""
        self.startWith(self._planOf(*listeners))

    def startWith(self, plan: Plan) -> None:
        """The same, of a plan."""
        self.service = EchodService(plan, self.loop, self.loop.seconds)
        self.service.privilegedStartService()
        self.service.startService()

    def reload(self, *listeners: Listened) -> None:
        """As SIGHUP."""
        self.service.reload(self._planOf(*listeners))

    def _planOf(self, *listeners: Listened) -> Plan:
        return planOf(
            self.registry, *listeners, descriptors=self.descriptors, directory=self.directory
        )

    def streams(self) -> list[Any]:
        """The listeners of streams, in the plan's order."""
        return [each for each in self.service.listeners if hasattr(each, "limits")]

    def ports(self) -> list[int]:
        """Where the listeners are, in the plan's order."""
        return [listener.getHost().port for listener in self.service.listeners]

    def echo(self, client: socket.socket, data: bytes) -> bytes:
        """What comes back within some turns; nothing if there is no answer."""
        client.setblocking(False)
        client.send(data)
        for _ in range(20):
            self.loop.turn(0.002)
            with suppress(BlockingIOError):
                return client.recv(100)
        return b""

    def kept(self) -> dict[str, int]:
        """How many there are of what a reload might leave behind."""
        gc.collect()
        return {
            "listeners": sum(isinstance(each, Listener) for each in gc.get_objects()),
            "services": len(self.service.services),
            "swept": len(self.service._sweep._shardOf),
            "descriptors": len(os.listdir("/proc/self/fd")),
            "readers": len(self.service._facade.getReaders()),
            "own ports": len(self.service._ownPorts),
        }

    def beginStop(self) -> list[Any]:
        """Drain; the list is empty until that has ended."""
        ended: list[Any] = []
        self.service.stopService().addCallback(ended.append)
        return ended

    def stop(self) -> None:
        """Drain; it must come to an end."""
        ended = self.beginStop()
        waitUntil(self.loop.turn, lambda: ended)
