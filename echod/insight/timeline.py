"""
What happened to one connection, in order: `Timeline`.

A connection writes into it, if its listener keeps timelines, and pages read it.  What happens over
and over (reads, writes, echoes, pauses) is one entry with count, total and greatest, as long as it
goes on within `GAP` seconds and nothing of another kind comes between: a ping-pong of a thousand
messages is two entries.  Of the entries the first ones stay, `FIRST` at most, and so do the last
ones.  How many fell out in between is counted.

Times are monotonic seconds inside, and whole microseconds since the beginning for whoever asks
(`Timeline.told`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic

__all__ = ["EVENTS", "FIRST", "GAP", "Timeline"]

#: Entries at the beginning that never fall out; half of all, where there are fewer than twice it.
FIRST = 16
#: Seconds after which what goes on again has an entry of its own; and that make a silence.
GAP = 1.0
#: What can happen, and what the word means; docs/insight.md has this list, computed.
EVENTS = {
    "open": "It was accepted.",
    "header": "Its PROXY header has come.",
    "handshake": "All that comes before the protocol's bytes is done: a header, a TLS handshake.",
    "first": "The first byte of payload has come.",
    "read": "Payload came: `count` reads, `bytes` in all, `greatest` in one, the last at `until`.",
    "write": "Payload was handed over to be sent, told likewise.",
    "pause": "Reading stopped `count` times; `reason` is `output_full`, `input_held` or `rate`.",
    "resume": "Reading went on, told likewise.",
    "drain": "The daemon stops: what has come is still answered.",
    "peer_fin": "The peer's FIN has come.",
    "our_fin": "Our FIN is with the kernel.",
    "deadline": "A deadline has passed; `reason` names it.",
    "ending": "We end it, for this `reason`; what still comes is thrown away.",
    "unread": "We break it off, and so many `bytes` of the peer's were never read.",
    "fault": "Its protocol raised.",
    "rst": "It was broken; `reason` says by whom: `peer`, `network` or `us`.",
    "quiet": "From here on nothing happened for `us` microseconds.",
    "end": "It is gone; `reason` says how: `fin`, `rst` (the peer's, or the network's) or `abort`"
    " (ours).",
}

#: In one turn as many bytes were read as were sent: told as a read and a write.
_ECHO = "echo"


class _Run:
    """What happened over and over: ``count`` times, ``total`` in all, ``greatest`` at once."""

    __slots__ = ("count", "greatest", "kind", "reason", "since", "total", "until")

    def __init__(self, kind: str, reason: str, now: float, amount: int) -> None:
        self.kind = kind
        self.reason = reason
        self.since = self.until = now
        self.count = 1
        self.total = self.greatest = amount

    def add(self, now: float, amount: int) -> None:
        """Once more."""
        self.until = now
        self.count += 1
        self.total += amount
        self.greatest = max(self.greatest, amount)


# All else: what, for which reason or how much, when.
_Entry = tuple[str, str | int, float]


class Timeline:
    """
    What happened to one connection.

    :param most: entries to keep; 2 at least are.
    :param clock: monotonic seconds.
    :ivar began: when it began, by the clock.
    :ivar firstAt: when the first byte of payload came, by the clock; ``None`` before.
    :ivar fellOut: entries that have fallen out.
    """

    __slots__ = (
        *("_clock", "_echo", "_echoed", "_echoedAt", "_entries", "_most", "_runs"),
        *("began", "fellOut", "firstAt"),
    )

    def __init__(self, most: int, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._most = max(most, 2)
        self._entries: list[_Run | _Entry] = []
        # What goes on and may go on: the run of echoes, and those of other kinds.
        self._echo: _Run | None = None
        self._echoed = 0
        self._echoedAt = 0.0
        self._runs: Sequence[_Run] = ()
        self.began = clock()
        self.firstAt: float | None = None
        self.fellOut = 0

    @property
    def seconds(self) -> float:
        """From its beginning to its last entry."""
        if not self._entries:
            return 0.0
        last = self._entries[-1]
        return (last.until if isinstance(last, _Run) else last[2]) - self.began

    def __len__(self) -> int:
        return len(self._entries)

    # -- What a connection writes ----------------------------------------------------------

    def add(self, kind: str, what: str | int = "") -> None:
        """
        Something happened that is told by itself.

        :param kind: one of `EVENTS`.
        :param what: for which reason, or how many bytes.
        """
        self._entries.append((kind, what, self._clock()))
        self._echo, self._runs = None, ()
        if len(self._entries) > self._most:
            self._drop()

    def echoed(self, total: int, at: float) -> None:
        """
        A turn in which payload may have been read and sent back.

        :param total: bytes that have been in all.
        :param at: when the last of them were, by a clock that moves now and then: as long as it
            says the same, nobody asks what time it is.
        """
        count = total - self._echoed
        run = self._echo
        if run is None or at is not self._echoedAt:
            if count:
                self._echoedLater(count, at)
        elif count:
            self._echoed = total
            run.count += 1
            run.total += count
            if count > run.greatest:
                run.greatest = count

    def _echoedLater(self, count: int, at: float) -> None:
        now, run = self._clock(), self._echo
        self._echoed += count
        self._echoedAt = at
        if run is None or now - run.until >= GAP:
            self._echo = self._begin(_ECHO, "", now, count)
        else:
            run.add(now, count)

    def repeated(self, kind: str, amount: int = 0, reason: str = "") -> None:
        """
        Something happened that happens over and over.

        :param kind: ``read``, ``write``, ``pause`` or ``resume``.
        :param amount: how many bytes.
        """
        now = self._clock()
        for run in self._runs:
            if run.kind == kind and run.reason == reason and now - run.until < GAP:
                run.add(now, amount)
                return
        run = self._begin(kind, reason, now, amount)
        others = [each for each in self._runs if (each.kind, each.reason) != (kind, reason)]
        self._runs = [*others, run]

    def _begin(self, kind: str, reason: str, now: float, amount: int) -> _Run:
        if self.firstAt is None and (kind == _ECHO or kind == "read"):
            self.firstAt = now
            self._entries.append(("first", "", now))
        run = _Run(kind, reason, now, amount)
        self._entries.append(run)
        if len(self._entries) > self._most:
            self._drop()
        return run

    def shorten(self, most: int) -> None:
        """Keep so many entries from now on, and of those that there are."""
        self._most = max(most, 2)
        self._drop()

    def _drop(self) -> None:
        """Let the oldest fall out, but for the first ones."""
        first = min(FIRST, self._most // 2)
        gone = max(0, len(self._entries) - self._most)
        self.fellOut += gone
        # Looked for among those that fall out: mostly it is one, and those that stay are many.
        fallen = self._entries[first : first + gone]
        del self._entries[first : first + gone]
        # What fell out does not go on: what happens next has an entry of its own.
        if any(entry is self._echo for entry in fallen):
            self._echo = None
        self._runs = [run for run in self._runs if not any(entry is run for entry in fallen)]

    # -- What others read ------------------------------------------------------------------

    def told(self) -> dict[str, object]:
        """
        All of it, as plain values: ``{"fell_out": 0, "events": [{"event": "open", "at": 0}, …]}``.

        ``at`` and ``until`` are microseconds since the beginning; of what was echoed in one turn
        ``until`` may be a tenth of a second too early.
        """
        events: list[dict[str, object]] = [{"event": "open", "at": 0}]
        before = self.began
        for entry in list(self._entries):
            at = entry.since if isinstance(entry, _Run) else entry[2]
            if at - before >= GAP:
                silent = {"event": "quiet", "at": self._since(before)}
                events.append({**silent, "us": round((at - before) * 1e6)})
            if isinstance(entry, _Run):
                events += self._toldRun(entry)
                before = max(before, entry.until)
            else:
                events.append(self._toldEntry(entry))
                before = max(before, at)
        return {"fell_out": self.fellOut, "events": events}

    def _since(self, time: float) -> int:
        return round((time - self.began) * 1e6)

    def _toldEntry(self, entry: _Entry) -> dict[str, object]:
        kind, what, at = entry
        told: dict[str, object] = {"event": kind, "at": self._since(at)}
        if what != "":
            told["bytes" if isinstance(what, int) else "reason"] = what
        return told

    def _toldRun(self, run: _Run) -> list[dict[str, object]]:
        kinds = ("read", "write") if run.kind == _ECHO else (run.kind,)
        told: dict[str, object] = {"at": self._since(run.since), "count": run.count}
        if run.count > 1:
            told["until"] = self._since(run.until)
        if run.total:
            told |= {"bytes": run.total, "greatest": run.greatest}
        if run.reason:
            told["reason"] = run.reason
        return [{"event": kind, **told} for kind in kinds]
