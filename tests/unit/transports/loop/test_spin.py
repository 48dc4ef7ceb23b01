"""`echod.transports.loop.spin`: it looks as long as that pays."""

from __future__ import annotations

from echod.transports.loop.spin import LONGEST_PAUSE, LOOKS, Spin


def passed(spin: Spin) -> int:
    """How many chances it passes over before the next look."""
    for count in range(2 * LONGEST_PAUSE):
        if spin.looks():
            return count
    raise AssertionError("it never looks again")


def test_looksWhileItPays() -> None:
    """With a hit each time it never pauses."""
    spin = Spin()
    for _ in range(100):
        assert spin.looks() == LOOKS
        spin.tell(True)


def test_pausesDouble() -> None:
    """Each miss doubles the pause, up to the longest."""
    spin = Spin()
    pauses = []
    for _ in range(9):
        spin.tell(False)
        pauses.append(passed(spin))
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 64, 64]
    assert LONGEST_PAUSE == 64


def test_aHitEndsThePauses() -> None:
    """After a hit the next miss is the first again."""
    spin = Spin()
    for _ in range(5):
        spin.tell(False)
        passed(spin)
    spin.tell(True)
    assert passed(spin) == 0
    spin.tell(False)
    assert passed(spin) == 1
