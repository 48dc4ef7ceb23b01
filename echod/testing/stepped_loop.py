"""A reactor whose turns, and whose time, are yours: `Loop`."""

from __future__ import annotations

import select
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IHalfCloseableDescriptor,
    IReadDescriptor,
    IWriteDescriptor,
)
from twisted.internet.task import Clock
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from echod.interfaces import IDescriptorReactor
from echod.testing.memory_socket import MemorySocket

__all__ = ["Loop"]

_log = Logger()


@implementer(IDescriptorReactor)
class Loop(Clock):
    """Descriptors, real and imitated, and a clock; `turn` is one turn of the reactor."""

    def __init__(self) -> None:
        super().__init__()
        self._readers: dict[Any, None] = {}
        self._writers: dict[Any, None] = {}

    def addReader(self, reader: IReadDescriptor) -> None:
        """See ``IReactorFDSet``."""
        self._readers[reader] = None

    def addWriter(self, writer: IWriteDescriptor) -> None:
        """See ``IReactorFDSet``."""
        self._writers[writer] = None

    def removeReader(self, reader: IReadDescriptor) -> None:
        """See ``IReactorFDSet``."""
        self._readers.pop(reader, None)

    def removeWriter(self, writer: IWriteDescriptor) -> None:
        """See ``IReactorFDSet``."""
        self._writers.pop(writer, None)

    def removeAll(self) -> list[Any]:
        """See ``IReactorFDSet``."""
        everybody = list({**self._readers, **self._writers})
        self._readers.clear()
        self._writers.clear()
        return everybody

    def getReaders(self) -> list[Any]:
        """See ``IReactorFDSet``."""
        return list(self._readers)

    def getWriters(self) -> list[Any]:
        """See ``IReactorFDSet``."""
        return list(self._writers)

    def turn(self, wait: float = 0.0) -> bool:
        """
        Call what is due, then every descriptor that is ready, once.

        :param wait: seconds to wait for real descriptors if nothing is ready.
        :returns: whether anything was called.
        """
        # What these ask for waits for the next turn, as in any reactor.
        due = [call for call in self.calls if call.getTime() <= self.seconds()]
        for call in due:
            if call.active():
                self.calls.remove(call)
                call.called = 1
                call.func(*call.args, **call.kw)
        ready = self._ready(0.0 if due else wait)
        for descriptor, events in ready:
            self.serve(descriptor, events)
        return bool(due or ready)

    def _ready(self, wait: float) -> list[tuple[Any, int]]:
        ready, real = [], {}
        poll = select.poll()
        for descriptor in {**self._readers, **self._writers}:
            wanted = (select.POLLIN if descriptor in self._readers else 0) | (
                select.POLLOUT if descriptor in self._writers else 0
            )
            if isinstance(getattr(descriptor, "socket", None), MemorySocket):
                events = descriptor.socket.poll() & (wanted | select.POLLERR)
                if events:
                    ready.append((descriptor, events))
            else:
                poll.register(descriptor.fileno(), wanted)
                real[descriptor.fileno()] = descriptor
        if real:
            timeout = 0 if ready else wait * 1000
            ready.extend((real[number], events) for number, events in poll.poll(timeout))
        return ready

    # Any: it is asked for what it can do, as Twisted does.
    def serve(self, descriptor: Any, events: int) -> None:
        """Serve one as Twisted's poll reactors do: read, then write, then believe an error."""
        why, reading = None, False
        try:
            if events & select.POLLIN and descriptor in self._readers:
                reading = True
                why = descriptor.doRead()
            if not why and events & select.POLLOUT and descriptor in self._writers:
                reading = False
                why = descriptor.doWrite()
            if not why and not events & (select.POLLIN | select.POLLOUT):
                why = ConnectionResetError()
        except Exception as error:
            _log.failure("a descriptor raised")
            why = error
        if why:
            self.removeReader(descriptor)
            if (
                reading
                and isinstance(why, ConnectionDone)
                and IHalfCloseableDescriptor.providedBy(descriptor)
            ):
                descriptor.readConnectionLost(Failure(why))
            else:
                self.removeWriter(descriptor)
                descriptor.connectionLost(Failure(why))
