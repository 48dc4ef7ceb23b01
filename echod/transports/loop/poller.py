"""
A reactor's descriptors, polled apart: one epoll inside the other.

`Poller` is an ``IReactorFDSet`` that owns an epoll object (epoll(7)) and is itself one reader
of the real reactor.  When anything of its is ready it takes a bounded batch and calls
``doRead`` and ``doWrite`` straight, without the logging context that Twisted's reactors push
and pop around each event.  Everything else, timers, threads and signals, stays the real
reactor's, which may be any that can watch a descriptor.

Kept as in Twisted's own reactors: an exception costs the descriptor that raised it and is
logged; a descriptor may vanish, or be closed and its number be given to another, within one
batch; EOF and errors end a descriptor in the same words.  Different: a descriptor that
neither reads nor writes stays registered with an empty mask, because the kernel reports
errors unasked: a peer's RST ends a paused connection at once.
"""

from __future__ import annotations

import select
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IFileDescriptor,
    IHalfCloseableDescriptor,
    IReactorFDSet,
    IReadDescriptor,
    IWriteDescriptor,
)
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from echod.insight.fault_log import tellFault
from echod.transports.loop.entry import QUICK, Entry
from echod.transports.loop.spin import Spin

__all__ = ["BATCH", "Poller", "available"]

_log = Logger()

_done = Failure(CONNECTION_DONE)

#: Events taken in one turn at most, so that timers, signals and others get their turn.
BATCH = 128

#: Seconds after which those with much to do wait for others, at least; and for each of them: a look
#: passes them over at 0.3 µs each, or 1.4 µs amid handshakes, which leave nothing in the caches,
#: and shall take a small part of the time.
LOOK = 50e-6
PASSED = 10e-6
#: Seconds after which those with much to do wait for timers and signals, if each had a turn.
TURN = 2e-3
#: Seconds that one descriptor may have in one turn before somebody is told.
SLOW = 0.1
# EPOLLIN, EPOLLOUT, EPOLLERR: in numbers, so that the module imports where there is no epoll.
_IN, _OUT, _ERR = 1, 4, 8


def available() -> bool:
    """Whether this system has epoll."""
    return hasattr(select, "epoll")


@implementer(IReactorFDSet, IReadDescriptor)
class Poller:
    """
    Polls descriptors by an epoll of its own, which the real reactor reads.

    The epoll object lives from the first descriptor to the last.

    :param reactor: the real one, an ``IReactorFDSet`` too.
    :param slow: told of a descriptor that held everybody else up for more than `SLOW`, and for how
        many seconds.
    :param clock: monotonic seconds, by which turns are measured.
    """

    connected = True

    def __init__(
        self,
        reactor: IReactorFDSet,
        slow: Callable[[object, float], None] | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._reactor = reactor
        self._slow = slow
        self._clock = clock
        # Any: an epoll object while somebody is watched, and ``None`` is asked for nothing.
        self._epoll: Any = None
        # By number.  Written by _add and _forget, always together with epoll itself.
        self._entries: dict[int, Entry] = {}
        # Numbers let go within the running batch: what it still holds for them is not meant
        # for whoever has them now.
        self._stale: set[int] = set()
        self._spin = Spin()
        # Those with much to do that are ready and wait for their turn, the longest first; by
        # number, and what epoll said of them.
        self._waiting: dict[int, int] = {}

    # -- IReactorFDSet -----------------------------------------------------------------------

    def addReader(self, reader: IReadDescriptor) -> None:
        """See ``IReactorFDSet``."""
        self._add(reader, _IN)

    def addWriter(self, writer: IWriteDescriptor) -> None:
        """See ``IReactorFDSet``."""
        self._add(writer, _OUT)

    def removeReader(self, reader: IReadDescriptor) -> None:
        """See ``IReactorFDSet``."""
        self._remove(reader, _IN)

    def removeWriter(self, writer: IWriteDescriptor) -> None:
        """See ``IReactorFDSet``."""
        self._remove(writer, _OUT)

    def removeAll(self) -> list[IReadDescriptor | IWriteDescriptor]:
        """See ``IReactorFDSet``."""
        everybody = [entry.descriptor for entry in self._entries.values()]
        for number in list(self._entries):
            self._forget(number)
        return everybody

    def getReaders(self) -> list[IReadDescriptor]:
        """See ``IReactorFDSet``."""
        return self._asking(_IN)

    def getWriters(self) -> list[IWriteDescriptor]:
        """See ``IReactorFDSet``."""
        return self._asking(_OUT)

    def _asking(self, bit: int) -> list[Any]:
        return [entry.descriptor for entry in self._entries.values() if entry.mask & bit]

    def _add(self, descriptor: IFileDescriptor, bit: int) -> None:
        number = descriptor.fileno()
        entry = self._entries.get(number)
        if entry is not None and entry.descriptor is not descriptor:
            # The former bearer of the number was closed without a word; epoll knows.
            self._waiting.pop(number, None)
            self._stale.add(number)
            entry = None
        if entry is None:
            try:
                if self._epoll is None:
                    self._epoll = select.epoll()
                    self._reactor.addReader(self)
                self._epoll.register(number, bit)
            except OSError:
                self._closeIfEmpty()
                raise
            self._entries[number] = Entry(descriptor, bit)
        elif not entry.mask & bit:
            self._epoll.modify(number, entry.mask | bit)
            entry.mask |= bit
            entry.quick = False

    def _remove(self, descriptor: IFileDescriptor, bit: int) -> None:
        number = descriptor.fileno()
        if number == -1:
            # It was closed before it was removed.
            number = self._formerNumber(descriptor)
        entry = self._entries.get(number)
        if entry is None or entry.descriptor is not descriptor:
            return
        rest = entry.mask & ~bit
        if not rest and not getattr(descriptor, "connected", False):
            self._forget(number)
        elif rest != entry.mask:
            self._modify(number, entry, rest)

    def _modify(self, number: int, entry: Entry, mask: int) -> None:
        try:
            self._epoll.modify(number, mask)
        except OSError:
            # Closed too, but it did not say so.
            self._forget(number)
        else:
            entry.mask = mask
            entry.quick = False

    def _formerNumber(self, descriptor: IFileDescriptor) -> int:
        for number, entry in self._entries.items():
            if entry.descriptor is descriptor:
                return number
        return -1

    def _forget(self, number: int) -> None:
        del self._entries[number]
        self._waiting.pop(number, None)
        self._stale.add(number)
        try:
            self._epoll.unregister(number)
        except OSError:
            # It was closed before it was removed.
            _log.debug("descriptor {number} was gone already", number=number)
        self._closeIfEmpty()

    def _closeIfEmpty(self) -> None:
        if not self._entries and self._epoll is not None:
            self._reactor.removeReader(self)
            self._epoll.close()
            self._epoll = None

    # -- IReadDescriptor, for the real reactor -------------------------------------------------

    def fileno(self) -> int:
        """The epoll object's number."""
        return -1 if self._epoll is None else int(self._epoll.fileno())

    def logPrefix(self) -> str:
        """See ``ILoggingContext``."""
        return "Poller"

    def doRead(self) -> None:
        """
        Serve what is ready: those with little to do first, and again between those with much.

        So a message waits for a turn or a few of a flood, not for one of each that floods.
        While all that is ready is `QUICK` the turn goes on, up to a batch: a turn of Twisted's
        reactor costs as much as several short messages (8 µs).
        """
        left = BATCH
        events = self._epoll.poll(0, left)
        self._stale.clear()
        while events and self._serve(events) and self._epoll is not None:
            left -= len(events)
            if not left:
                break
            self._stale.clear()
            alone = len(events) == 1
            events = self._epoll.poll(0, left)
            if alone and not events:
                events = self._lookOn(left)
        if self._waiting:
            self._serveBetween()

    def _lookOn(self, most: int) -> list[tuple[int, int]]:
        """Look for the answer of the one client that there is, where that pays (`Spin`)."""
        events: list[tuple[int, int]] = []
        looks = self._spin.looks()
        for _ in range(looks):
            events = self._epoll.poll(0, most)
            if events:
                break
        if looks:
            self._spin.tell(bool(events))
        return events

    def _serveBetween(self) -> None:
        """
        Serve those with much to do one by one, a batch at most, and others in between.

        Where they are few they have more turns, until `TURN` is over: a turn of Twisted's reactor
        has a price too.
        """
        waiting = self._waiting
        few = min(len(waiting), BATCH)
        wait = max(LOOK, few * PASSED)
        clock = self._clock
        began = looked = clock()
        for served in range(1, BATCH + 1):
            # The one that waits longest.
            number = next(iter(waiting))
            self._serve(((number, waiting.pop(number)),), all_=True)
            if self._epoll is None:
                return
            now = clock()
            if now - looked > wait:
                self._serve(self._epoll.poll(0, BATCH))
                looked = clock()
            if not waiting or (served >= few and now - began > TURN):
                return

    def _serve(self, events: Iterable[tuple[int, int]], *, all_: bool = False) -> bool:
        """
        Serve a batch; returns whether all of them were `QUICK`.

        The clock is not read after one that was `QUICK`: the next that is not has a few
        microseconds of others in its time, and none of them can have held anybody up.

        :param all_: whether to serve also descriptors that have much to read, and not have them
            wait.
        """
        entries, stale, waiting, clock = self._entries, self._stale, self._waiting, self._clock
        allQuick = True
        before = clock()
        for number, event in events:
            try:
                entry = entries[number]
            except KeyError:
                # Closed before it was removed, and kept alive by a duplicate.
                continue
            descriptor = entry.descriptor
            reading = True
            try:
                if entry.quick and event == _IN:
                    why = descriptor.doRead()
                    if why is QUICK:
                        continue
                    entry.quick = False
                elif waiting and number in waiting:
                    # First, and without a look at the descriptor, which is in no cache by now.
                    waiting[number] = event
                    allQuick = False
                    continue
                elif stale and number in stale:
                    continue
                elif event & _IN and entry.mask & _IN:
                    if not all_ and getattr(descriptor, "readsMuch", False):
                        waiting[number] = event
                        allQuick = False
                        continue
                    why = descriptor.doRead()
                    if why is QUICK:
                        entry.quick = entry.mask == _IN
                    # Both, and still so: it may have waited since epoll said it.
                    if not why and event & _OUT and number not in stale and entry.mask & _OUT:
                        reading = False
                        why = descriptor.doWrite()
                elif event & _OUT and entry.mask & _OUT:
                    reading = False
                    why = descriptor.doWrite()
                elif event & _ERR:
                    reading = False
                    why = CONNECTION_LOST
                elif event & (_IN | _OUT):
                    # Another one's turn in this batch has stopped it.
                    continue
                elif entry.mask & _IN:
                    why = CONNECTION_DONE
                elif entry.mask & _OUT:
                    reading = False
                    why = CONNECTION_LOST
                else:
                    # EPOLLHUP alone, nothing asked for: both directions have ended, and
                    # would be reported for ever.
                    self._forget(number)
                    continue
            except BaseException as error:
                # SystemExit too, as Twisted's reactors do: it must not end the poller.
                tellFault(Failure(), f"{descriptor!r} raised")
                why = error
            if why:
                self._disconnect(number, descriptor, why, reading)
            allQuick = False
            after = clock()
            if after - before > SLOW and self._slow is not None:
                self._slow(descriptor, after - before)
            before = after
        return allQuick

    def _disconnect(
        self, number: int, descriptor: IFileDescriptor, why: BaseException, reading: bool
    ) -> None:
        """End a descriptor, or only its reading, as Twisted's reactors do."""
        failure = _done if why is CONNECTION_DONE else Failure(why)
        try:
            if (
                reading
                and isinstance(why, ConnectionDone)
                and IHalfCloseableDescriptor.providedBy(descriptor)
            ):
                self._endReading(number, descriptor, failure)
            else:
                entry = self._entries.get(number)
                if entry is not None and entry.descriptor is descriptor:
                    self._forget(number)
                descriptor.connectionLost(failure)
        except BaseException:
            tellFault(Failure(), f"{descriptor!r} raised as it ended")

    def _endReading(
        self, number: int, descriptor: IHalfCloseableDescriptor, failure: Failure
    ) -> None:
        """EOF; the kernel is told only if the descriptor is still there afterwards."""
        entry = self._entries.get(number)
        if entry is None or entry.descriptor is not descriptor:
            descriptor.readConnectionLost(failure)
            return
        entry.mask &= ~_IN
        entry.quick = False
        try:
            descriptor.readConnectionLost(failure)
        finally:
            if self._entries.get(number) is entry:
                self._modify(number, entry, entry.mask)

    def connectionLost(self, reason: Failure) -> None:
        """The reactor is going down: so is everybody here."""
        for descriptor in self.removeAll():
            try:
                descriptor.connectionLost(reason)
            except BaseException:
                tellFault(Failure(), f"{descriptor!r} raised as it ended")
