r"""
What every protocol on a listener is held to: `checkProtocol`, for your own tests.

One call from pytest, or from anything that knows ``AssertionError``::

    def test_conforms():
        checkProtocol(rot13, sample=b"Hello\n", answer=lambda data: codecs.encode(...))

Each check makes fresh connections with `memoryLink` (or the link of your choice), and its
failure says which promise was broken, and by which bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
from msgspec import Struct
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher
from zope.interface import implementer

from echod.config.conversion import convert
from echod.config.limits import Limits
from echod.connection.states import Reason, State
from echod.errors import ConfigurationError
from echod.interfaces import IStreamProtocolMaker, ServerContext
from echod.kit.context_parameter import callMaker
from echod.server.registry import verify
from echod.testing.links import Link, memoryLink
from echod.testing.plain_context import PlainContext
from echod.testing.tls_socket import RECORD

__all__ = ["SAMPLE", "checkProtocol"]

#: What is sent, unless you say otherwise: lines, which any byte protocol can take.
SAMPLE = b"Hello, world!\r\n" + bytes(range(256)) + b"\nthe end\n"
#: What a stalled peer is sent, in bytes, and what may wait for it besides its kernel's buffers.
FLOOD = 1 << 20
HELD = 384 * 1024

_LIMITS = Limits(stallTimeout=60.0, lingerTimeout=5.0)
#: Small enough to fill, and not a multiple of anything.
_BUFFER = 4099
#: Large enough for large reads: what is echoed unseen goes through a pipe then, and if the peer
#: stalls, waits there (`echod.transports.bulk_echo`).
_BULK_BUFFER = 49999
#: What a slow reader takes at once; no multiple of anything either.
_SIP = 997
#: Seconds in which the sweep, which comes once a second, has seen everything.
_SETTLED = 1.5

MakeLink = Callable[..., Link]
Expected = Callable[[bytes], bytes]


def checkProtocol(
    maker: IStreamProtocolMaker,
    settings: Struct | None = None,
    *,
    sample: bytes = SAMPLE,
    answer: bytes | Expected | None = None,
    link: MakeLink = memoryLink,
    context: ServerContext | None = None,
) -> None:
    """
    Hold a protocol to what every listener promises.

    Its answer must depend on nothing but the bytes that were sent, and end when the peer ends.

    :param settings: an instance of the maker's options; its defaults if not given.
    :param sample: what a client sends, then FIN; a few messages are enough.
    :param answer: what must come back; or a function that says so for any input made of a part
        or of repetitions of ``sample``.  Without it, what comes back for the whole at once is
        taken for right, and all else is held to that.
    :param link: `memoryLink` or `tcpLink`.
    :param context: what the maker is told of the server; a `PlainContext` if not given.
    :raises AssertionError: which promise is broken, and how.
    """
    verify(maker, maker.name)
    if settings is None and maker.options is not None:
        settings = maker.options()
    _Kit(maker, settings, sample, answer, link, context or PlainContext()).run()


class _Kit:
    """One call of `checkProtocol`."""

    def __init__(
        self,
        maker: IStreamProtocolMaker,
        settings: Struct | None,
        sample: bytes,
        answer: bytes | Expected | None,
        makeLink: MakeLink,
        context: ServerContext,
    ) -> None:
        self._maker = maker
        self._factory = callMaker(maker.makeFactory, settings, context)
        self._sample = sample
        self._makeLink = makeLink
        self._answer = answer
        self._links: list[Link] = []
        # What had to be read before all was sent.
        self._early = bytearray()

    def run(self) -> None:
        self._factory.doStart()
        try:
            for check in (
                self.badSettings,
                self.wholeInput,
                self.byteByByte,
                self.twoPieces,
                self.nothingAtAll,
                self.halfCloseWithPendingOutput,
                self.stalledReader,
                self.neverReads,
                self.slowReader,
                self.abruptLoss,
                self.drain,
            ):
                with _watchedLog(check.__name__), self._closingAll():
                    check()
        finally:
            self._factory.doStop()

    # -- The checks ------------------------------------------------------------------------

    def badSettings(self) -> None:
        """An option that does not exist, or has a value of no use, is refused."""
        options = self._maker.options
        if options is None:
            return
        bad: list[dict[str, Any]] = [{"no-such-option": 1}]
        bad += [{field.encode_name: [[]]} for field in msgspec.structs.fields(options)]
        for values in bad:
            try:
                convert(values, options)
            except ConfigurationError:
                continue
            raise AssertionError(f"badSettings: {options.__name__} takes {values!r}")

    def wholeInput(self) -> None:
        """Sent at once, then FIN."""
        answer = self._expected(self._sample)
        self._same("wholeInput", self._open().exchange(self._sample), answer)

    def byteByByte(self) -> None:
        """TCP has no packets: single bytes mean the same."""
        link = self._open()
        for number in self._sample:
            self._send(link, bytes([number]))
        link.finish()
        self._same("byteByByte", self._readAll(link), self._expected(self._sample))

    def twoPieces(self) -> None:
        """As does a split in the middle of anything."""
        step = max(1, len(self._sample) // 20)
        for at in range(1, len(self._sample), step):
            link = self._open()
            self._send(link, self._sample[:at])
            self._send(link, self._sample[at:])
            link.finish()
            got = self._readAll(link)
            self._same(f"twoPieces, split at {at}", got, self._expected(self._sample))

    def nothingAtAll(self) -> None:
        """Connect and close without a byte: a health check."""
        link = self._open()
        link.pump()
        link.finish()
        self._same("nothingAtAll", self._readAll(link), self._expected(b""))

    def halfCloseWithPendingOutput(self) -> None:
        """EOF is not close: what is owed at the peer's FIN still comes."""
        for link, sent in self._stalls():
            link.finish()
            link.pump()
            self._same("halfCloseWithPendingOutput", self._readAll(link), self._expected(sent))

    def stalledReader(self) -> None:
        """A peer that does not read for a while loses nothing, and costs a bounded memory."""
        for link, sent in self._stalls():
            connection = link.connection
            waiting = connection.transport.unsent()
            assert waiting <= HELD + 2 * _BUFFER, f"stalledReader: {waiting} bytes wait for it"
            if connection.state is State.OPEN:
                link.advance(_LIMITS.stallTimeout / 2)
                state = connection.state
                assert state is State.OPEN, f"stalledReader: {state} after half the stall timeout"
            got = self._allCounted(link)
            while piece := link.receive(3 * _BUFFER):
                got += piece
                link.pump()
            link.finish()
            self._same("stalledReader", got + self._readAll(link), self._expected(sent))

    def neverReads(self) -> None:
        """One that never reads is gone after its deadline."""
        for link, _ in self._stalls():
            owed = link.connection.owes()
            link.finish()
            link.advance(_LIMITS.stallTimeout + _LIMITS.lingerTimeout + 3)
            assert link.gone, f"neverReads: still there, {link.connection.state}, owing: {owed}"

    def slowReader(self) -> None:
        """Reading in sips gives the same bytes: pausing and resuming loses and repeats nothing."""
        data = self._repeated(FLOOD // 8)
        link = self._open(_BUFFER)
        view, pieces = memoryview(data), []
        while view:
            view = view[self._sendSome(link, view) :]
            link.pump(patience=0.0)
            pieces.append(link.receive(_SIP) or b"")
        link.finish()
        got = b"".join(pieces) + self._readAll(link, _SIP)
        self._same("slowReader", got, self._expected(data))

    def abruptLoss(self) -> None:
        """RST, before anything, in the middle, and while output is pending."""
        fresh, busy = self._open(), self._open()
        self._send(busy, self._sample[: len(self._sample) // 2])
        stalled = [link for link, _ in self._stalls()]
        for link in (fresh, busy, *stalled):
            link.reset()
            link.pump()
            link.advance(_SETTLED)
            assert link.gone, f"abruptLoss: still there, {link.connection.state}"

    def drain(self) -> None:
        """At the end of the daemon, what the kernel holds is answered, then comes our FIN."""
        link = self._open()
        link.pump()
        sent = b""
        if link.connection.state is State.OPEN:
            sent = self._sample[: link.send(self._sample)]
        link.connection.drain()
        self._same("drain", link.readAll(), self._expected(sent))
        link.finish()
        link.pump()
        link.advance(_LIMITS.lingerTimeout + _SETTLED)
        assert link.gone, f"drain: still there, {link.connection.state}"

    # -- Their tools -----------------------------------------------------------------------

    def _open(self, buffers: int | None = None) -> Link:
        sizes = {} if buffers is None else {"sendBuffer": buffers, "receiveBuffer": buffers}
        link = self._makeLink(self._factory.buildProtocol(None), limits=_LIMITS, **sizes)
        self._links.append(link)
        return link

    @contextmanager
    def _closingAll(self) -> Iterator[None]:
        """Leave no connection behind, whatever the check found."""
        try:
            yield
        finally:
            for link in self._links:
                link.close()
                link.connection.abort(Reason.DRAIN)
                link.pump()
            self._links.clear()
            self._early.clear()

    def _expected(self, data: bytes) -> bytes:
        if callable(self._answer):
            return self._answer(data)
        if self._answer is not None and data == self._sample:
            return self._answer
        return self._open().exchange(data)

    def _same(self, check: str, got: bytes, expected: bytes) -> None:
        if got != expected:
            same = [one == other for one, other in zip(got, expected, strict=False)]
            at = same.index(False) if False in same else len(same)
            raise AssertionError(
                f"{check}: {len(got)} bytes came back instead of {len(expected)};"
                f" from {at} on {got[at : at + 40]!r} instead of {expected[at : at + 40]!r}"
            )

    def _repeated(self, size: int) -> bytes:
        return self._sample * (size // max(1, len(self._sample)) + 1)

    def _sendSome(self, link: Link, data: bytes | memoryview) -> int:
        """Send what goes; all of it is taken for sent once the server has closed."""
        try:
            return link.send(data)
        except (BrokenPipeError, ConnectionResetError):
            return len(data)

    def _send(self, link: Link, data: bytes) -> None:
        """Send all of it, reading meanwhile what must be read for that."""
        while data:
            data = data[self._sendSome(link, data) :]
            # Whatever a kernel still has on its way may be read together with the next.
            link.pump(patience=0.0)
            if data:
                self._early += link.receive() or b""

    def _stalls(self) -> Iterator[tuple[Link, bytes]]:
        """Links whose clients sent all that they could, and read nothing; and what they sent."""
        link, sent = self._stall(_BUFFER)
        yield link, sent
        if link.connection.verbatim:
            yield self._stall(_BULK_BUFFER)

    def _stall(self, buffers: int) -> tuple[Link, bytes]:
        link = self._open(buffers)
        data = self._repeated(FLOOD)
        sent = 0
        while sent < len(data) and link.connection.state is State.OPEN:
            taken = link.send(data[sent : sent + buffers])
            link.pump()
            if not taken and not link.send(data[sent : sent + 1]):
                break
            sent += taken or 1
        return link, data[:sent]

    def _allCounted(self, link: Link) -> bytes:
        """Read what is under way, and see that all else that was answered counts as unsent."""
        transport, answered = link.connection.transport, link.connection.bytesOut
        got, unsent = b"", transport.unsent()
        while piece := link.receive():
            got += piece
            unsent = transport.unsent()
        missing = answered - len(got) - unsent
        # A part of a record has arrived, and cannot be read yet.
        incomplete = RECORD if transport.tls else 0
        assert missing <= incomplete, f"stalledReader: {missing} bytes wait that are not counted"
        return got

    def _readAll(self, link: Link, limit: int = 65536) -> bytes:
        """Read to the end, and see that the connection is gone then."""
        data, self._early = bytes(self._early) + link.readAll(limit), bytearray()
        link.advance(_SETTLED)
        assert link.gone, f"still there after both FINs: {link.connection.state}"
        return data


@contextmanager
def _watchedLog(check: str) -> Iterator[None]:
    """Nothing that a peer does is worth a traceback."""
    errors = _Errors()
    globalLogPublisher.addObserver(errors)
    try:
        yield
    finally:
        globalLogPublisher.removeObserver(errors)
    assert not errors.lines, f"{check}: the log has {errors.lines[0]!r}"


@implementer(ILogObserver)
class _Errors:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, event: LogEvent) -> None:
        if event.get("log_level") is LogLevel.critical:
            failure = event.get("log_failure")
            cause = f": {failure.value!r}" if failure else ""
            self.lines.append(formatEvent(event) + cause)
