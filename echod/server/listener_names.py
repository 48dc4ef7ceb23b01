"""What listeners are called in metrics: `ListenerNames`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count

from echod.insight.refusals import Refusals
from echod.server.listener import Listener

__all__ = ["ListenerNames"]


class ListenerNames:
    """
    What listeners are called in metrics: as they are configured, so that a restart renames none.

    Where two are alike, as at ports that the system chooses, the later one has a number.  It keeps
    its name as long as its counters are told, whoever comes and goes: else counters would fall.
    """

    def __init__(self) -> None:
        # Whose counters (of those refused, which the heir of a listener goes on with), how they are
        # configured, and the name.
        self._named: list[tuple[Refusals, str, str]] = []

    def of(self, listeners: Sequence[Listener]) -> list[str]:
        """A name for each, all of them different."""
        asked = [
            (each.refusals, f"{each.plan.maker.name} {each.plan.endpoint}") for each in listeners
        ]
        # Their ids are those of objects that live: they are kept here.
        known = {(id(counts), base): name for counts, base, name in self._named}
        names = [known.get((id(counts), base)) for counts, base in asked]
        taken = set(names)
        named = []
        for (counts, base), name in zip(asked, names, strict=True):
            if name is None:
                name = next(each for each in _spelled(base) if each not in taken)
                taken.add(name)
            named.append((counts, base, name))
        self._named = named
        return [name for _, _, name in named]


def _spelled(base: str) -> Iterator[str]:
    yield base
    yield from (f"{base} #{number}" for number in count(2))
