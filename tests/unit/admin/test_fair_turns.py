"""`echod.admin.fair_turns`: all answers share the time of a turn."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from twisted.internet.task import Clock

from echod.admin.fair_turns import TURN, SharedTurns
from echod.testing import Loop
from echod.testing.plain_context import PlainInsight
from tests.unit.admin.asking import Server, get


class Passing(Loop):
    """A clock that a glance at takes a millisecond of."""

    def seconds(self) -> float:
        self.rightNow += 0.001
        return self.rightNow


def test_share() -> None:
    """Each has its turn, and together they have no more than one slice."""
    clock = Passing()
    turns = SharedTurns(clock)
    done: list[str] = []

    def work(name: str) -> Any:
        def some() -> bool:
            done.append(name)
            while not turns.over():
                pass
            return len(done) < 30

        return some

    for name in "abc":
        turns.join(work(name))
    begun = clock.rightNow
    counts = []
    while clock.calls:
        clock.turn()
        counts.append(len(done))
    assert counts[:6] == [1, 2, 3, 4, 5, 6]
    assert "".join(done[:9]) == "abcabcabc"
    assert clock.rightNow - begun < len(counts) * 2 * TURN


def test_leave() -> None:
    """Who leaves is not called, also if another of that turn makes it leave."""
    clock = Clock()
    turns = SharedTurns(clock)
    called: list[str] = []

    def second() -> bool:
        called.append("second")
        return False

    def first() -> bool:
        called.append("first")
        turns.leave(second)
        return False

    turns.join(first)
    turns.join(second)
    turns.leave(lambda: False)
    clock.advance(0)
    clock.advance(0)
    assert called == ["first"]
    assert clock.calls == []


def test_consistent() -> None:
    """A list is as of one moment if its first turn was enough for it."""

    def rows(count: int) -> Iterator[dict[str, Any]]:
        return ({"id": str(number)} for number in range(count))

    quick = Server(insight=PlainInsight(live=list(rows(500))))
    assert get(quick, "/connections").json["consistent"] is True
    slow = Server(insight=PlainInsight(live=list(rows(500))), clock=Passing())
    found = get(slow, "/connections").json
    assert found["consistent"] is False
    assert [row["id"] for row in found["connections"]] == [str(number) for number in range(500)]
    short = Server(insight=PlainInsight(live=list(rows(5))), clock=Passing())
    assert get(short, "/connections").json["consistent"] is True
    long = Server(insight=PlainInsight(live=[{"id": "x" * 1000}] * 200))
    assert get(long, "/connections").json["consistent"] is False


def test_glancesAtTheClock() -> None:
    """No more than a slice of a turn is spent on a list, whatever its rows cost."""
    clock = Passing()
    turns: list[int] = []
    made = itertools.count()

    class Dear(PlainInsight):
        def connections(self, **words: str) -> Iterator[dict[str, Any]]:
            for number in range(200):
                clock.rightNow += 0.002
                next(made)
                turns.append(number)
                yield {"id": str(number)}

    assert len(get(Server(insight=Dear(), clock=clock), "/connections").json["connections"]) == 200
    assert clock.rightNow < 200 * 0.01


def test_nothingYet() -> None:
    """Who looks for rows gives others a turn; what is no row is not in the list."""
    clock = Passing()

    class Looking(PlainInsight):
        def connections(self, **words: str) -> Iterator[dict[str, Any]]:
            for number in range(40):
                clock.rightNow += 0.002
                yield {}
                if number % 10 == 9:
                    yield {"id": str(number)}
            yield {}

    found = get(Server(insight=Looking(), clock=clock), "/connections?limit=4").json
    assert [row["id"] for row in found["connections"]] == ["9", "19", "29", "39"]
    assert (found["consistent"], found["more"]) == (False, False)
    quick = Server(insight=PlainInsight(live=[{}, {"id": "1"}, {}]))
    found = get(quick, "/connections?limit=1").json
    assert found["connections"] == [{"id": "1"}]
    assert (found["consistent"], found["more"]) == (True, False)
