"""Clients that come all the while, as others come to a daemon that is restarted or killed."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.integration.daemon import PATIENCE
from tests.integration.peers import noise

__all__ = ["Arrivals", "Visit"]

#: What visitors send, in turn: within what a kernel takes at once.
SIZES = (1, 100, 1400, 5000, 20_000)
#: What those that stay send at a time.
WORD = 512
_NOISE = noise(1 << 16)


@dataclass
class Visit:
    """
    One connection; times are of the monotonic clock, in seconds.

    :ivar sends: when something had been sent, and how many bytes in all by then.
    :ivar got: how many came back; all of them were right.
    :ivar outcome: ``whole``, ``short`` (EOF too early), ``reset`` or ``refused``.
    """

    began: float
    sends: list[tuple[float, int]] = field(default_factory=list)
    got: int = 0
    outcome: str = ""
    ended: float = 0.0

    def sentBefore(self, time: float) -> int:
        """Bytes that had been sent at a time."""
        return max((total for when, total in self.sends if when < time), default=0)


class Arrivals:
    """
    A load on a raw echo at 127.0.0.1, as long as the ``with`` block runs.

    Each newcomer sends, reads its echo and closes, at EOF too.  Others stay.  Whoever is cut off
    comes again at once, whoever is refused does not.

    :param port: where it is.
    :param within: calls a function, in whose network they are to be.
    :param rate: newcomers a second, whatever becomes of those before.
    :param staying: how many stay.
    :ivar visits: those that have ended.
    :ivar waits: seconds from each newcomer's first try to its whole echo, with when that was.
    """

    def __init__(
        self, port: int, within: Callable[[Callable[[], Any]], Any], rate: float, staying: int
    ) -> None:
        self.visits: list[Visit] = []
        self.waits: list[tuple[float, float]] = []
        self._port = port
        self._rate = rate
        self._staying = staying
        self._ending = False
        # When each newcomer came that has not its echo yet; written by _come.
        self._waiting: dict[int, float] = {}
        self._failures: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, args=(within,))

    def __enter__(self) -> Arrivals:
        self._thread.start()
        return self

    def __exit__(self, kind: object, *exception: object) -> None:
        self._ending = True
        self._thread.join(2 * PATIENCE)
        if kind is None:
            assert self._failures == []

    def allServed(self, before: float) -> bool:
        """Whether every newcomer that came before a time has got its echo."""
        assert self._failures == []
        return all(came >= before for came in list(self._waiting.values()))

    def served(self) -> int:
        """How many newcomers have got their echo."""
        assert self._failures == []
        return len(self.waits)

    def _run(self, within: Callable[[Callable[[], Any]], Any]) -> None:
        try:
            within(lambda: asyncio.run(self._all()))
        except BaseException as error:
            self._failures.append(error)

    async def _all(self) -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            for number in range(self._staying):
                group.create_task(self._stay(number))
            following = loop.time()
            for number in itertools.count():
                if self._ending:
                    break
                group.create_task(self._come(number))
                following += 1 / self._rate
                await asyncio.sleep(following - loop.time())

    async def _come(self, number: int) -> None:
        time = asyncio.get_running_loop().time
        began = time()
        self._waiting[number] = began
        size = SIZES[number % len(SIZES)]
        start = number % 997
        data = _NOISE[start : start + size]
        outcome = "short"
        # Who was cut off comes again.
        while outcome in ("short", "reset") and not self._ending:
            outcome = (await self._visit(data, finishing=bool(number % 2))).outcome
        del self._waiting[number]
        if outcome == "whole":
            self.waits.append((time(), time() - began))

    async def _visit(self, data: bytes, finishing: bool) -> Visit:
        async def exchange(
            visit: Visit, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            await self._send(visit, writer, data)
            if finishing:
                writer.write_eof()
            await self._receive(visit, reader, data, 0)
            assert not finishing or visit.got < len(data) or not await reader.read(1)

        return await self._connected(exchange)

    async def _stay(self, number: int) -> None:
        async def converse(
            visit: Visit, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            for turn in itertools.count():
                if self._ending:
                    return
                start = (number * 31 + turn) % 9973
                word = _NOISE[start : start + WORD]
                await self._send(visit, writer, word)
                await self._receive(visit, reader, word, turn * WORD)
                if visit.got < (turn + 1) * WORD:
                    return
                await asyncio.sleep(0.02)

        outcome = ""
        while outcome != "refused" and not self._ending:
            outcome = (await self._connected(converse)).outcome

    async def _connected(self, call: Callable[..., Any]) -> Visit:
        time = asyncio.get_running_loop().time
        visit = Visit(time())
        try:
            async with asyncio.timeout(PATIENCE):
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                try:
                    await call(visit, reader, writer)
                    visit.outcome = "whole" if visit.got == visit.sentBefore(time()) else "short"
                finally:
                    writer.transport.abort()
        except ConnectionRefusedError:
            visit.outcome = "refused"
        except (ConnectionResetError, BrokenPipeError):
            visit.outcome = "reset"
        visit.ended = time()
        self.visits.append(visit)
        return visit

    async def _send(self, visit: Visit, writer: asyncio.StreamWriter, data: bytes) -> None:
        writer.write(data)
        # All of it is the kernel's.
        assert writer.transport.get_write_buffer_size() == 0
        before = visit.sends[-1][1] if visit.sends else 0
        visit.sends.append((asyncio.get_running_loop().time(), before + len(data)))

    async def _receive(
        self, visit: Visit, reader: asyncio.StreamReader, data: bytes, before: int
    ) -> None:
        """Read until all of ``data`` has come back, after ``before`` bytes, or EOF."""
        while visit.got - before < len(data):
            piece = await reader.read(1 << 16)
            at = visit.got - before
            assert data.startswith(piece, at), "not what was sent"
            if not piece:
                return
            visit.got += len(piece)
