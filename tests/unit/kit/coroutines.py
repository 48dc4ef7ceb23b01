"""Coroutines on links, for the tests of what they read, write and end."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import Deferred

from echod.kit.coroutine import Handler, StreamConnection
from echod.kit.makers import StreamMaker
from echod.kit.stream import Stream
from echod.testing import Link, memoryLink


def serve(handler: Handler, *, limit: int = 65536, make: Any = memoryLink, **keywords: Any) -> Link:
    maker = StreamMaker("test", "a test", handler, limit=limit)
    return make(maker.makeFactory(None).buildProtocol(None), **keywords)  # type: ignore[no-any-return,arg-type]  # memoryLink or tcpLink; no address


def streamOf(link: Link) -> Stream:
    assert isinstance(link.connection, StreamConnection)
    return link.connection.stream


def sendEach(link: Link, data: bytes, step: int = 1) -> None:
    for at in range(0, len(data), step):
        assert link.send(data[at : at + step])
        link.pump()


def bare(**keywords: Any) -> tuple[Link, Stream]:
    """A stream that no handler uses: the test does."""
    link = memoryLink(StreamConnection(), **keywords)
    return link, streamOf(link)


def start(coroutine: Coroutine[Any, Any, Any]) -> list[Any]:
    """Run it; its result, or what it raised, is in the list as soon as there is one."""
    results: list[Any] = []
    waiting = Deferred.fromCoroutine(coroutine)
    waiting.addCallbacks(results.append, lambda failure: results.append(failure.value))
    return results


async def echo(stream: Stream) -> None:
    while data := await stream.read():
        await stream.write(data)
