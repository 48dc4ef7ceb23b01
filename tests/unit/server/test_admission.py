"""`echod.server.admission`: who is admitted, who makes room, how many descriptors there are for
it."""

from __future__ import annotations

import math
import resource
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from echod.config.limits import Limits
from echod.connection.connection import Connection
from echod.connection.owner import Owner
from echod.connection.states import Reason, State
from echod.connection.sweep import Sweep
from echod.errors import ConfigurationError
from echod.protocols.raw import RawOptions, raw
from echod.server.admission import IDLE_ENOUGH, ConnectionLimit
from echod.server.descriptors import RESERVED, RESERVED_EACH, fitDescriptors, raiseDescriptorLimit
from echod.testing import Link, memoryLink


class Room(Owner):
    """A listener's part in admission: real connections in front of a `ConnectionLimit`."""

    limits = Limits()

    def __init__(self, maximum: int) -> None:
        self.sweep = Sweep(Clock(), lambda: 0.0)
        self.limit = ConnectionLimit(maximum)

    @property
    def now(self) -> float:
        return self.sweep.now

    @now.setter
    def now(self, seconds: float) -> None:
        self.sweep.now = seconds

    def opened(self, connection: Connection) -> None:
        self.limit.opened(connection)

    def lingering(self, connection: Connection) -> None:
        self.limit.ended(connection)

    def closed(self, connection: Connection) -> None:
        self.limit.closed(connection)

    def join(self, now: float | None = None, buffers: int = 65536) -> Link:
        """A connection that was last active at ``now``, past admission."""
        self.now = self.now if now is None else now
        connection = raw.makeFactory(RawOptions()).buildProtocol(None)  # type: ignore[arg-type]  # no address
        assert isinstance(connection, Connection)
        link = memoryLink(connection, sendBuffer=buffers, receiveBuffer=buffers)
        # From its link's clock to the room's.
        connection._sweep.discard(connection)
        connection.owner = self
        connection._sweep = self.sweep
        connection.transport.echoUnseen(True, clock=self.sweep)
        self.opened(connection)
        talk(link)
        return link

    def knock(self, now: float | None = None) -> bool:
        """Whether one more may come."""
        self.now = self.now if now is None else now
        return self.limit.admit(self.now)


def talk(link: Link) -> None:
    """One byte there and back."""
    assert link.send(b"x") == 1
    link.pump()
    assert link.receive() == b"x"


def states(links: list[Link]) -> str:
    """One letter each: o(pen), l(ingering), a(borted), c(losed)."""
    return "".join(link.connection.state.value[0] for link in links)


# -- Who makes room -------------------------------------------------------------------------


def test_belowTheLimitEverybodyComes() -> None:
    """F11: nobody is ended while there is room."""
    room = Room(3)
    links = []
    for _ in range(3):
        assert room.knock(0.0)
        links.append(room.join())
    room.now = 100.0
    assert states(links) == "ooo"
    links[0].connection.abort(Reason.ERROR)
    links[0].pump()
    assert states(links) == "aoo"
    assert room.knock()
    assert states(links) == "aoo"


def test_theLongestIdleGoesFirst() -> None:
    """F11: the order is that of the last byte, not of arrival; one goes for each that comes."""
    room = Room(4)
    links = [room.join(since) for since in (3.0, 1.0, 4.0, 2.0)]
    for gone in ([1], [1, 3], [1, 3, 0], [1, 3, 0, 2]):
        assert room.knock(10.0)
        evicted = [at for at, link in enumerate(links) if link.connection.reason is Reason.EVICTED]
        assert evicted == sorted(gone)
        assert len(room.limit.open) == 3
        room.join()
    # Those that came are active.
    assert not room.knock()


def test_evictionIsGraceful() -> None:
    """F11, C2: what was echoed arrives, then FIN, no RST."""
    room = Room(1)
    link = room.join(0.0)
    link.send(b"hello")
    link.pump()
    assert room.knock(5.0)
    link.send(b"too late")
    assert link.readAll() == b"hello"
    link.finish()
    link.pump()
    assert link.connection.state is State.CLOSED
    assert link.connection.discarded == 8
    assert link.connection.reason is Reason.EVICTED
    assert not room.limit.open
    assert not room.limit.lingering


def test_nobodyIdleForASecond() -> None:
    """F11: else a flood would push out those who are being served."""
    assert IDLE_ENOUGH == 1.0
    room = Room(2)
    links = [room.join(10.0), room.join(10.5)]
    for now in (10.5, 10.9, 10.99):
        assert not room.knock(now)
        assert states(links) == "oo"
    assert room.knock(11.0)
    assert states(links) == "lo"


def test_aByteMakesItActiveAgain() -> None:
    """F11: also after the order was made, within one tick."""
    room = Room(3)
    links = [room.join(since) for since in (1.0, 2.0, 3.0)]
    assert room.knock(10.0)
    assert states(links) == "loo"
    room.join()
    talk(links[1])
    assert room.knock(10.0)
    assert states(links) == "lol"
    # In the next tick the order is made anew.
    links[2] = room.join(10.0)
    assert not room.knock(10.5)
    assert room.knock(11.0)
    assert links[1].connection.state is State.LINGERING


def test_oneThatIsGoneIsNotAskedToGo() -> None:
    """Whoever left after the order was made has made no room for the next one."""
    room = Room(3)
    links = [room.join(since) for since in (1.0, 2.0, 3.0)]
    assert room.knock(10.0)
    room.join()
    links[1].finish()
    links[1].pump()
    assert states(links) == "lco"
    assert len(room.limit.open) == 2
    room.join()
    assert room.knock(10.0)
    assert states(links) == "lcl"


def test_busyOnesStay() -> None:
    """F7: who is owed bytes is not idle, however long it takes to read them."""
    room = Room(1)
    link = room.join(0.0, buffers=4096)
    for _ in range(20):
        link.send(bytes(4096))
        link.pump()
    assert link.connection.owes()
    assert not room.knock(1000.0)
    assert states([link]) == "o"
    while link.connection.owes():
        link.pump()
        assert link.receive()
    assert room.knock(2000.0)
    assert link.connection.state is State.LINGERING


def test_halfClosedOnesStayAndCount() -> None:
    """C1: a peer that has finished and still reads is being served."""
    room = Room(1)
    link = room.join(0.0, buffers=4096)
    for _ in range(20):
        link.send(bytes(4096))
        link.pump()
    link.finish()
    link.pump()
    assert not room.knock(1000.0)
    assert len(room.limit.open) == 1


def test_lingeringOnesDoNotCount() -> None:
    """Who was ended for another reason is no longer in the way."""
    room = Room(2)
    links = [room.join(0.0), room.join(0.0)]
    links[0].connection.end(Reason.QUIT)
    assert room.knock(10.0)
    assert states(links) == "lo"
    assert links[0].connection.reason is Reason.QUIT


@pytest.mark.parametrize(("maximum", "extra"), [(1, 1), (20, 1), (21, 2), (40, 2), (100, 5)])
def test_lingeringMayExceedByAFew(maximum: int, extra: int) -> None:
    """Five per cent more may be on their way out; beyond, the first that was ended is aborted."""
    room = Room(maximum)
    links = [room.join(float(number)) for number in range(maximum)]
    now = maximum + 10.0
    for count in range(1, maximum + 1):
        assert room.knock(now)
        room.join()
        aborted = max(0, count - extra)
        ended = count - aborted
        assert states(links) == "a" * aborted + "l" * ended + "o" * (maximum - count)
        assert len(room.limit.open) == maximum
        assert len(room.limit.lingering) == ended
    assert all(link.connection.reason is Reason.EVICTED for link in links)
    links[0].pump()
    if maximum > extra:
        with pytest.raises(ConnectionResetError):
            links[0].receive()
    else:
        assert links[0].receive() == b""


def test_theOldestEndIsAbortedFirst() -> None:
    """In the order of their ends, whatever the reason, which stays."""
    room = Room(2)
    first, second = room.join(0.0), room.join(0.0)
    second.connection.end(Reason.QUIT)
    third = room.join(1.0)
    first.connection.end(Reason.IDLE)
    room.join(2.0)
    assert states([first, second, third]) == "lao"
    assert second.connection.reason is Reason.QUIT
    assert list(room.limit.lingering) == [first.connection]


def test_openOnesAreNeverAborted() -> None:
    """Too many that are open are let be: admission has said yes to each."""
    room = Room(2)
    links = [room.join(0.0) for _ in range(5)]
    assert states(links) == "ooooo"
    assert len(room.limit.open) == 5


def test_goneTwice() -> None:
    """`ConnectionLimit.closed` for one that is not there does nothing."""
    room = Room(2)
    link = room.join(0.0)
    room.limit.closed(link.connection)
    room.limit.closed(link.connection)
    assert not room.limit.open
    assert room.knock()


# -- Descriptors ----------------------------------------------------------------------------


def needed(maxima: list[int]) -> int:
    """Descriptors for that many connections a listener, those on their way out included."""
    each = sum(count + math.ceil(count * 0.05) for count in maxima)
    return RESERVED + RESERVED_EACH * len(maxima) + each


def test_whatFitsStays() -> None:
    """Explicit or default: just enough is enough."""
    wanted = [(1000, False), (20, True), (1000, False)]
    limit = needed([1000, 20, 1000])
    assert fitDescriptors(wanted, limit) == [1000, 20, 1000]
    assert fitDescriptors(wanted, 1_000_000) == [1000, 20, 1000]
    assert fitDescriptors([], RESERVED) == []


def test_defaultsShrink() -> None:
    """The default shrinks, evenly, and what was asked for stays."""
    wanted = [(1000, False), (20, True), (1000, False)]
    limit = needed([1000, 20, 1000])
    fitted = fitDescriptors(wanted, limit - 1)
    assert fitted[1] == 20
    assert fitted[0] == fitted[2] < 1000
    assert fitted[0] >= 998
    small = fitDescriptors(wanted, needed([100, 20, 100]))
    assert small == [100, 20, 100]
    assert fitDescriptors([(1000, False)], needed([1])) == [1]


@pytest.mark.parametrize(
    ("wanted", "limit"),
    [
        ([(100, True)], needed([100]) - 1),
        ([(100, True), (100, True)], needed([100, 100]) - 1),
        ([(100, True), (1000, False)], needed([100, 1]) - 1),
        ([(1000, False)], needed([1]) - 1),
        ([(1000, False)], 0),
        ([(1, True)], 1),
    ],
)
def test_whatDoesNotFitIsRefused(wanted: list[tuple[int, bool]], limit: int) -> None:
    """An explicit value is refused, in one line with the number, the limit, the mend."""
    with pytest.raises(ConfigurationError) as caught:
        fitDescriptors(wanted, limit)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert f"limit of {limit}" in message
    # Where nobody asked for a number: the least that the defaults could shrink to.
    total = sum(count for count, explicit in wanted if explicit) or len(wanted)
    assert f"max_connections of {total} in all" in message
    assert f"{RESERVED + RESERVED_EACH * len(wanted)} are kept" in message
    assert "LimitNOFILE=" in message
    # One descriptor more than refused is enough for the first four.
    if limit > 1:
        assert needed(fitDescriptors(wanted, limit + 1)) <= limit + 1


counts = st.one_of(st.integers(1, 100), st.integers(1, 1_000_000))


@given(
    wanted=st.lists(
        st.one_of(st.tuples(counts, st.booleans()), st.just((1000, False))), min_size=1, max_size=8
    ),
    limit=st.one_of(st.integers(0, 3000), st.integers(0, 5_000_000)),
)
def test_theResultAlwaysFits(wanted: list[tuple[int, bool]], limit: int) -> None:
    """F11: the limit on connections is below the operating system's, whatever is asked for."""
    least = [count if explicit else 1 for count, explicit in wanted]
    try:
        fitted = fitDescriptors(wanted, limit)
    except ConfigurationError:
        assert needed(least) > limit
        return
    assert needed(fitted) <= limit
    assert len(fitted) == len(wanted)
    for (count, explicit), maximum in zip(wanted, fitted, strict=True):
        assert maximum == count if explicit else 1 <= maximum <= count
    if len({count for count, explicit in wanted if not explicit}) > 1:
        return
    # Nothing is wasted: with one more for each default it would not fit.
    shrunken = [
        maximum + (maximum < count) for (count, _), maximum in zip(wanted, fitted, strict=True)
    ]
    assert shrunken == fitted or needed(shrunken) > limit


@pytest.fixture
def descriptorLimits() -> Iterator[tuple[int, int]]:
    """The process's own limits, put back afterwards."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield before
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_raiseDescriptorLimit(descriptorLimits: tuple[int, int]) -> None:
    """The soft limit is raised to the hard one."""
    _, hard = descriptorLimits
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard // 2, hard))
    assert raiseDescriptorLimit() == hard
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    assert raiseDescriptorLimit() == hard
