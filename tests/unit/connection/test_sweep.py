"""`echod.connection.sweep`: one timer, everybody once a second, whatever the clocks do."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from twisted.internet.task import Clock

from echod.config.limits import Limits
from echod.connection.connection import Connection
from echod.connection.owner import Owner
from echod.connection.states import Reason, State
from echod.connection.sweep import SHARDS, TICK, Sweep
from echod.interfaces import IStreamProtocolMaker
from echod.protocols.line import line
from echod.protocols.prefixed import dns
from echod.protocols.raw import RawOptions, raw
from echod.testing import Link, PlainContext, memoryLink
from tests.conftest import LoggedErrors


class Times:
    """A monotonic clock, set by hand, beside the reactor's own."""

    def __init__(self) -> None:
        self.now = 100.0
        self.reactor = Clock()
        self.sweep = Sweep(self.reactor, lambda: self.now)

    def tick(self, count: int = 1) -> None:
        """Both clocks go on, tick by tick."""
        for _ in range(count):
            self.now += TICK
            self.reactor.advance(TICK)


class Noted:
    """Something to sweep, that notes when it was, and may do more."""

    def __init__(self, act: Callable[[], object] = lambda: None) -> None:
        self.times: list[float] = []
        self._act = act

    def sweep(self, now: float) -> None:
        self.times.append(now)
        self._act()


def lengths(swept: Sequence[Noted]) -> list[int]:
    """How often each was swept."""
    return [len(one.times) for one in swept]


def test_nothingHappensBeforeTheStart() -> None:
    """Constructors are pure: no timer until `Sweep.start`."""
    times = Times()
    assert times.reactor.getDelayedCalls() == []
    assert times.sweep.now == 100.0
    times.now = 105.0
    times.sweep.start()
    assert times.sweep.now == 105.0
    assert len(times.reactor.getDelayedCalls()) == 1


def test_oneTimerHoweverMany() -> None:
    """No timer for each connection."""
    times = Times()
    times.sweep.start()
    for _ in range(1000):
        times.sweep.add(Noted())
    assert len(times.reactor.getDelayedCalls()) == 1
    times.tick(25)
    assert len(times.reactor.getDelayedCalls()) == 1
    times.sweep.start()
    assert len(times.reactor.getDelayedCalls()) == 1


def test_now() -> None:
    """`Sweep.now` is the monotonic time of the last tick."""
    times = Times()
    times.sweep.start()
    times.now = 100.05
    times.reactor.advance(TICK / 2)
    assert times.sweep.now == 100.0
    times.now = 100.11
    times.reactor.advance(TICK / 2)
    assert times.sweep.now == 100.11


def test_everybodyOnceASecond() -> None:
    """Each is looked at in one tick out of ten, with the time of that tick."""
    assert pytest.approx(1.0) == TICK * SHARDS
    times = Times()
    times.sweep.start()
    swept = [Noted() for _ in range(100)]
    for one in swept:
        times.sweep.add(one)
    times.tick(10)
    assert lengths(swept) == [1] * 100
    times.tick(30)
    assert lengths(swept) == [4] * 100
    for one in swept:
        gaps = [after - before for before, after in zip(one.times, one.times[1:], strict=False)]
        assert gaps == pytest.approx([1.0] * 3)


@pytest.mark.parametrize("maker", [raw, line, dns], ids=lambda maker: str(maker.name))
def test_noTickHasMoreThanItsShare(maker: IStreamProtocolMaker) -> None:
    """A tenth of all connections a tick, so that no turn is long."""

    def connect() -> Link:
        connection = maker.makeFactory(maker.options(), PlainContext()).buildProtocol(None)
        assert isinstance(connection, Connection)
        return memoryLink(connection)

    times = Times()
    times.sweep.start()
    seen = [0]

    class Looking(Owner):
        """A listener that is asked for its limits each time that a connection is looked at."""

        sweep = times.sweep

        @property
        def limits(self) -> Limits:  # type: ignore[override]  # to count
            seen[-1] += 1
            return Limits()

    # Among what else comes with a connection: the places in memory are those of a daemon.
    links = [connect() for _ in range(1000)]
    for link in links:
        link.connection.owner = Looking()
        times.sweep.add(link.connection)
    for _ in range(SHARDS):
        times.tick()
        seen.append(0)
    assert sum(seen) == 1000
    assert max(seen) <= 150


def test_hurriedEachTick() -> None:
    """Who waits for the kernel alone is looked at ten times a second."""
    times = Times()
    times.sweep.start()
    hurried, other = Noted(), Noted()
    times.sweep.hurry(hurried)
    times.sweep.hurry(hurried)
    times.sweep.add(other)
    times.tick(20)
    assert hurried.times == pytest.approx([100 + TICK * tick for tick in range(1, 21)])
    assert len(other.times) == 2


def test_hurriedBesides() -> None:
    """One that was added and then hurried is looked at in every tick, and let go by one discard."""
    times = Times()
    times.sweep.start()
    one = Noted()
    times.sweep.add(one)
    times.sweep.hurry(one)
    times.tick(10)
    assert len(set(one.times)) == 10
    times.sweep.discard(one)
    del one.times[:]
    times.tick(20)
    assert one.times == []


def test_addTwice() -> None:
    """`Sweep.add`: once a second all the same, and one discard is enough."""
    times = Times()
    times.sweep.start()
    one = Noted()
    for _ in range(3):
        times.sweep.add(one)
    times.tick(10)
    assert len(one.times) == 1
    times.sweep.discard(one)
    times.tick(20)
    assert len(one.times) == 1


def test_discardTwice() -> None:
    """`Sweep.discard`: no more looks; a second call, or one for a stranger, does nothing."""
    times = Times()
    times.sweep.start()
    gone, left = Noted(), Noted()
    for one in (gone, left):
        times.sweep.add(one)
    times.sweep.discard(gone)
    times.sweep.discard(gone)
    times.sweep.discard(Noted())
    times.tick(10)
    assert lengths([gone, left]) == [0, 1]


def test_discardAndAddWhileSweeping() -> None:
    """A sweep may end its own connection, or let another come."""
    times = Times()
    times.sweep.start()
    late = Noted()
    first = Noted(lambda: times.sweep.discard(first))
    second = Noted(lambda: times.sweep.add(late))
    for one in (first, second):
        times.sweep.add(one)
    times.tick(30)
    assert len(first.times) == 1
    assert len(second.times) == 3
    assert len(late.times) in (2, 3)


def test_oneThatRaisesDoesNotStopOthers(loggedErrors: LoggedErrors) -> None:
    """O4: its own deadline is lost, nobody else's, and it is said."""

    def fail() -> None:
        raise RuntimeError("no such deadline")

    times = Times()
    times.sweep.start()
    failing = [Noted(fail) for _ in range(3)]
    good = [Noted() for _ in range(30)]
    for one in failing:
        times.sweep.hurry(one)
    for one in good:
        times.sweep.add(one)
    times.tick(10)
    assert lengths(good) == [1] * 30
    assert lengths(failing) == [10] * 3
    logged = loggedErrors.flush()
    # However often it raises, the log is not filled.
    assert 10 <= len(logged) < 30
    assert all("no such deadline" in line for line in logged)


def test_stop() -> None:
    """No timer is left; a second call does nothing; it can begin again."""
    times = Times()
    one = Noted()
    times.sweep.add(one)
    times.sweep.stop()
    times.sweep.start()
    times.sweep.stop()
    times.sweep.stop()
    assert times.reactor.getDelayedCalls() == []
    times.tick(20)
    assert one.times == []
    times.sweep.start()
    times.tick(10)
    assert len(one.times) == 1


def test_stopWhileSweeping() -> None:
    """The last connection's end may end the daemon."""
    times = Times()
    times.sweep.start()
    one = Noted(times.sweep.stop)
    times.sweep.hurry(one)
    times.tick(20)
    assert len(one.times) == 1
    assert times.reactor.getDelayedCalls() == []


def test_noTicksWhileNobodyIsThere() -> None:
    """It rests a second after the last has gone; whoever comes is given the time of now."""
    times = Times()
    times.sweep.start()
    quiet, one = Noted(), Noted()
    times.sweep.addQuietly(quiet)
    times.tick(SHARDS + 1)
    assert times.reactor.getDelayedCalls() == []
    assert len(quiet.times) >= 1
    times.now += 3600.0
    times.sweep.add(one)
    assert times.sweep.now == times.now
    times.tick(SHARDS * 3)
    assert len(one.times) == 3
    assert times.sweep.worstLag < TICK
    times.sweep.discard(one)
    del quiet.times[:]
    times.tick(SHARDS + 1)
    assert len(quiet.times) >= 1
    assert times.reactor.getDelayedCalls() == []
    times.sweep.hurry(one)
    times.tick(3)
    assert len(one.times) == 6


@pytest.mark.parametrize("count", range(SHARDS + 2))
def test_wokenOnItsWayToRest(count: int) -> None:
    """Woken after any tick, it looks at everybody once more before it rests."""
    times = Times()
    quiet = [Noted() for _ in range(SHARDS)]
    for one in quiet:
        times.sweep.addQuietly(one)
    times.sweep.start()
    times.tick(count)
    times.sweep.wake()
    woken = times.now
    times.tick(SHARDS)
    assert times.reactor.getDelayedCalls() != []
    assert all(one.times[-1] > woken for one in quiet)
    times.tick()
    assert times.reactor.getDelayedCalls() == []


@pytest.mark.parametrize("last", range(1, SHARDS + 2))
def test_wokenInATick(last: int) -> None:
    """So it does where the tick itself brings that about, were it the last."""
    times = Times()
    quiet = [Noted() for _ in range(SHARDS)]
    for one in quiet:
        times.sweep.addQuietly(one)
    waking = Noted(lambda: times.sweep.wake() if len(waking.times) == last else None)
    times.sweep.start()
    # In every shard: looked at each tick, though it keeps nobody awake.
    for shard in times.sweep._shards:
        shard[waking] = None
    times.tick(last)
    woken = times.now
    times.tick(SHARDS)
    assert times.reactor.getDelayedCalls() == []
    assert all(one.times[-1] >= woken for one in quiet)


# -- Clocks that step -----------------------------------------------------------------------


class TimedOwner(Owner):
    """A listener whose time is that of ``times``."""

    def __init__(self, times: Times, limits: Limits) -> None:
        self.sweep = times.sweep
        self.limits = limits


def connectionWith(times: Times, limits: Limits) -> Link:
    """A real connection under ``times``, not under its link's own clock."""
    connection = raw.makeFactory(RawOptions()).buildProtocol(None)  # type: ignore[arg-type]  # no address
    assert isinstance(connection, Connection)
    link = memoryLink(connection)
    # From its link's clock to the other.
    connection._sweep.discard(connection)
    connection.owner = TimedOwner(times, limits)
    connection._sweep = times.sweep
    connection.openedAt = connection._deliveredAt = times.sweep.now
    connection.progressed()
    times.sweep.add(connection)
    return link


def pump(links: Sequence[Link]) -> None:
    """A turn of the reactor between two ticks: each FIN gets on its way."""
    for link in links:
        link.pump()


def test_theReactorsClockMayStep() -> None:
    """The wall clock steps by an hour, and nobody is disconnected."""
    times = Times()
    times.sweep.start()
    limits = Limits(idleTimeout=10.0, maxAge=20.0)
    links = [connectionWith(times, limits) for _ in range(20)]
    noted = Noted()
    times.sweep.hurry(noted)
    for _ in range(SHARDS * 2):
        times.reactor.advance(3600.0)
        pump(links)
    assert noted.times
    assert set(noted.times) == {100.0}
    assert times.sweep.now == 100.0
    assert all(link.connection.state is State.OPEN for link in links)
    # Not because nothing would ever happen.
    for _ in range(111):
        times.tick()
        pump(links)
    assert all(link.connection.state is State.LINGERING for link in links)
    assert all(link.connection.reason is Reason.IDLE for link in links)


def test_aStepIsOneTick() -> None:
    """Ticks that were missed are not made up for."""
    times = Times()
    times.sweep.start()
    noted = Noted()
    times.sweep.hurry(noted)
    times.reactor.advance(3600.0)
    assert len(noted.times) == 1
    assert len(times.reactor.getDelayedCalls()) == 1
    times.tick()
    assert len(noted.times) == 2


def test_aLateTimerKeepsTheDeadline() -> None:
    """A loop that stood still for an hour sees in the next second who is too old."""
    times = Times()
    times.sweep.start()
    links = [connectionWith(times, Limits(idleTimeout=10.0)) for _ in range(20)]
    times.now += 3600.0
    for _ in range(SHARDS):
        times.reactor.advance(TICK)
        pump(links)
    assert all(link.connection.state is State.LINGERING for link in links)
