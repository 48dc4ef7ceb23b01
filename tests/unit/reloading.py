"""`Reloading`: a service whose plan is changed, on a reactor whose turns are the test's."""

from __future__ import annotations

import gc
import os
import socket
from typing import Any

from echod.planned import PlannedListener
from echod.planning import ListenerRequest, Plan, plan
from echod.registry import Registry, discover
from echod.service import EchodService
from echod.settings import Configuration
from echod.testing import Loop
from tests.unit.outer import waitUntil

__all__ = ["Listened", "Reloading", "planOf", "udpPort"]

#: Protocol, endpoint, and limits or other keys of a listener's table.
Listened = tuple[str, str, dict[str, Any]]


def planOf(registry: Registry, *listeners: Listened, descriptors: int = 100_000) -> Plan:
    """
    A plan of such listeners.

    :param descriptors: how many there may be.
    """
    requests = [
        ListenerRequest(
            place=f"$.listener[{index}]",
            protocol=protocol,
            endpoint=endpoint,
            limits=table,
            options=table.get("options", {}),
            tls=table.get("tls"),
            proxy=table.get("proxy"),
        )
        for index, (protocol, endpoint, table) in enumerate(listeners)
    ]
    return plan(Configuration(), requests, registry, descriptors)


class Reloading:
    """
    A daemon's listeners in a loop of their own.

    :ivar descriptors: how many there may be.
    """

    def __init__(self, registry: Registry | None = None) -> None:
        self.loop = Loop()
        self.service: Any = None
        self.registry = registry or discover()
        self.descriptors = 100_000

    def start(self, *listeners: Listened) -> None:
        """Bind."""
        made = planOf(self.registry, *listeners, descriptors=self.descriptors)
        self.service = EchodService(made, self.loop, self.loop.seconds)
        self.service.privilegedStartService()
        self.service.startService()

    def reload(self, *listeners: Listened) -> None:
        """As SIGHUP."""
        self.service.reload(planOf(self.registry, *listeners, descriptors=self.descriptors))

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
        try:
            return client.recv(100)
        except BlockingIOError:
            return b""

    def kept(self) -> dict[str, int]:
        """How many there are of what a reload might leave behind."""
        gc.collect()
        return {
            "listeners": sum(isinstance(each, PlannedListener) for each in gc.get_objects()),
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


def udpPort() -> int:
    """One that is free."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as skt:
        skt.bind(("127.0.0.1", 0))
        return int(skt.getsockname()[1])
