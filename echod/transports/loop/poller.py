"""
A reactor's descriptors, polled apart: epoll objects inside the reactor's own.

`Poller` is an ``IReactorFDSet``.  It has two epoll objects, each of which is one reader of the real
reactor (`NestedEpoll`): one for those with little to do, another for those with much.  When
anything is ready it takes a bounded batch and calls ``doRead`` and ``doWrite`` straight, without
the logging context that Twisted's reactors push and pop around each event.  Everything else,
timers, threads and signals, stays the real reactor's, which may be any that can watch a descriptor.

A descriptor may say that its last read brought much (``readsMuch``).  Such ones have a turn each,
in the order in which the kernel has them, and whoever has little to do goes first and in between.

Kept as in Twisted's own reactors: an exception costs the descriptor that raised it and is
logged; a descriptor may vanish, or be closed and its number be given to another, within one
batch; EOF and errors end a descriptor in the same words.  Different: a descriptor that
neither reads nor writes stays registered with an empty mask, because the kernel reports
errors unasked: a peer's RST ends a paused connection at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from time import monotonic
from typing import Any, Literal

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
from echod.transports.loop.nested_epoll import NestedEpoll
from echod.transports.loop.spin import Spin

__all__ = ["BATCH", "FEW", "SLOW", "TURN", "Poller"]

_log = Logger()

_done = Failure(CONNECTION_DONE)

#: Events taken in one turn at most, so that timers, signals and others get their turn.
BATCH = 128
#: Of those with much to do, served before it is looked which are ready now.
FEW = 8
#: Seconds after which those with much to do wait for timers and signals.
TURN = 2e-3
#: Seconds that one descriptor may have in one turn before somebody is told.
SLOW = 0.1
# EPOLLIN, EPOLLOUT, EPOLLERR: in numbers, so that the module imports where there is no epoll.
_IN, _OUT, _ERR = 1, 4, 8


@implementer(IReactorFDSet)
class Poller:
    """
    Polls descriptors by epoll objects of its own, which live from the first one to the last.

    :param reactor: the real one, an ``IReactorFDSet`` too.
    :param slow: told of a descriptor that held everybody else up for more than `SLOW`, and for how
        many seconds.
    :param clock: monotonic seconds, by which turns are measured.
    """

    def __init__(
        self,
        reactor: IReactorFDSet,
        slow: Callable[[object, float], None] | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._little = NestedEpoll(reactor, self._serveLittle, self._lost)
        self._much = NestedEpoll(reactor, self._serveMuch, self._lost)
        self._slow = slow
        self._clock = clock
        # By number.  Written by _add and _drop, always together with epoll itself.
        self._entries: dict[int, Entry] = {}
        # Those of them that ask for input alone, and whose last read was `QUICK`, by number; else
        # ``None``.  A list, and nothing of an entry, because that is in the caches.
        # Any: a reader.
        self._quick: list[Any] = []
        # Numbers let go within the running batch: what it still holds for them is not meant
        # for whoever has them now.
        self._stale: set[int] = set()
        self._spin = Spin()

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
            with suppress(OSError):
                self._drop(number).epoll.unregister(number)
            entry = None
        if entry is None:
            polled = self._much if getattr(descriptor, "readsMuch", False) else self._little
            try:
                if polled.epoll is None:
                    self._little.open()
                    self._much.open()
                polled.epoll.register(number, bit)
            except OSError:
                self._closeIfEmpty()
                raise
            self._entries[number] = Entry(descriptor, bit, polled)
            self._quick.extend([None] * (number + 1 - len(self._quick)))
        elif not entry.mask & bit:
            entry.polled.epoll.modify(number, entry.mask | bit)
            entry.mask |= bit
            self._quick[number] = None

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
            entry.polled.epoll.modify(number, mask)
        except OSError:
            # Closed too, but it did not say so.
            self._forget(number)
        else:
            entry.mask = mask
            self._quick[number] = None

    def _formerNumber(self, descriptor: IFileDescriptor) -> int:
        for number, entry in self._entries.items():
            if entry.descriptor is descriptor:
                return number
        return -1

    def _drop(self, number: int) -> NestedEpoll:
        """Know a number no longer; returns where it may be registered."""
        polled = self._entries.pop(number).polled
        self._quick[number] = None
        self._stale.add(number)
        return polled

    def _forget(self, number: int) -> None:
        polled = self._drop(number)
        try:
            polled.epoll.unregister(number)
        except OSError:
            # It was closed before it was removed.
            _log.debug("descriptor {number} was gone already", number=number)
        self._closeIfEmpty()

    def _closeIfEmpty(self) -> None:
        if not self._entries:
            self._little.close()
            self._much.close()

    # -- What the real reactor calls -----------------------------------------------------------

    def _serveLittle(self) -> None:
        """
        Serve those with little to do that are ready.

        While all that is ready is `QUICK` the turn goes on, up to a batch: a turn of Twisted's
        reactor costs as much as several short messages (8 µs).
        """
        little, left = self._little, BATCH
        events = little.epoll.poll(0, left)
        self._stale.clear()
        while events and self._serve(events) and little.epoll is not None:
            left -= len(events)
            if not left:
                break
            self._stale.clear()
            alone = len(events) == 1
            events = little.epoll.poll(0, left)
            if alone and not events and not self._much.ready():
                events = self._spin.look(little.epoll.poll, left)

    def _serveMuch(self) -> None:
        """
        Serve those with much to do one by one, and before each of them whoever has little to do.

        So a message waits for one turn of a flood, not for one of each that floods.  A batch is
        finished always: the kernel has put its events behind all others.  Once `TURN` is over it
        is so without a look at others.
        """
        little, much, entries, clock = self._little, self._much, self._entries, self._clock
        before = clock()
        end = before + TURN
        for _ in range(BATCH // FEW):
            events = much.epoll.poll(0, FEW)
            for number, entry, event in [(n, entries.get(n), event) for n, event in events]:
                ready = little.epoll.poll(0, BATCH) if before <= end else None
                if ready:
                    self._stale.clear()
                    self._serve(ready)
                    before = clock()
                # It may have gone, and its number be another's.
                if entry is not None and entries.get(number) is entry:
                    self._turn(number, entry, event)
                    before = self._time(entry.descriptor, before)
                if little.epoll is None:
                    return
            if not events or before > end:
                return

    def _serve(self, events: Iterable[tuple[int, int]]) -> bool:
        """
        Serve a batch of those with little to do; returns whether all of them were `QUICK`.

        The clock is not read after one that was `QUICK`: the next that is not has a few
        microseconds of others in its time, and none of them can have held anybody up.
        """
        entries, stale, quick = self._entries, self._stale, self._quick
        allQuick = True
        before = self._clock()
        for number, event in events:
            reader = quick[number]
            if reader is not None and event == _IN:
                # The shortest way.
                try:
                    why = reader.doRead()
                except BaseException as error:
                    why = self._raised(reader, error)
                if why is QUICK:
                    continue
                quick[number] = None
                self._settle(number, reader, why, reading=True)
            elif number in entries and number not in stale:
                reader = entries[number].descriptor
                self._turn(number, entries[number], event)
            else:
                # Gone; or closed before it was removed, and kept alive by a duplicate.
                continue
            allQuick = False
            before = self._time(reader, before)
        return allQuick

    def _turn(self, number: int, entry: Entry, event: int) -> None:
        """Have one read, or write, or both, as it asks for and epoll has said."""
        descriptor = entry.descriptor
        reading = True
        try:
            if event & _IN and entry.mask & _IN:
                why = descriptor.doRead()
                if not why and self._entries.get(number) is entry:
                    if event & _OUT and entry.mask & _OUT:
                        reading = False
                        why = descriptor.doWrite()
                    elif why is QUICK and entry.mask == _IN:
                        self._quick[number] = descriptor
            elif event & _OUT and entry.mask & _OUT:
                reading = False
                why = descriptor.doWrite()
            elif event & _ERR:
                reading = False
                why = CONNECTION_LOST
            elif event & (_IN | _OUT):
                # Another one's turn in this batch has stopped it.
                return
            elif entry.mask & _IN:
                why = CONNECTION_DONE
            elif entry.mask & _OUT:
                reading = False
                why = CONNECTION_LOST
            else:
                # EPOLLHUP alone, nothing asked for: both directions have ended, and
                # would be reported for ever.
                self._forget(number)
                return
        except BaseException as error:
            why = self._raised(descriptor, error)
        self._settle(number, descriptor, why, reading)

    def _raised(self, descriptor: object, error: BaseException) -> BaseException:
        """Tell it; SystemExit too, as Twisted's reactors do: it must not end the poller."""
        tellFault(Failure(), f"{descriptor!r} raised")
        return error

    def _settle(
        self,
        number: int,
        descriptor: IFileDescriptor,
        why: BaseException | Literal[False] | None,
        reading: bool,
    ) -> None:
        """After a turn: end it, if there is a reason; or put it to those that it is one of now."""
        if why:
            self._disconnect(number, descriptor, why, reading)
        entry = self._entries.get(number)
        if entry is None or entry.descriptor is not descriptor:
            return
        polled = self._much if getattr(descriptor, "readsMuch", False) else self._little
        if polled is not entry.polled and polled.takeOver(number, entry.mask, entry.polled):
            entry.polled = polled

    def _time(self, descriptor: object, before: float) -> float:
        """Tell of one that has held everybody up since then; returns the time."""
        now = self._clock()
        if now - before > SLOW and self._slow is not None:
            self._slow(descriptor, now - before)
        return now

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
        self._quick[number] = None
        try:
            descriptor.readConnectionLost(failure)
        finally:
            if self._entries.get(number) is entry:
                self._modify(number, entry, entry.mask)

    def _lost(self, reason: Failure) -> None:
        """The reactor is going down: so is everybody here."""
        for descriptor in self.removeAll():
            try:
                descriptor.connectionLost(reason)
            except BaseException:
                tellFault(Failure(), f"{descriptor!r} raised as it ended")
