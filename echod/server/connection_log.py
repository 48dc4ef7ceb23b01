"""What the daemon says of its connections in the log: who came, who was refused, who was slow."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

from twisted.logger import Logger

from echod.connection.connection import Connection
from echod.connection.rows import peerOf
from echod.connection.states import Reason
from echod.insight.peers import tellPeer
from echod.insight.refusals import Refusals

__all__ = ["ConnectionLog", "RefusalLog", "SlowLog"]

_log = Logger()

#: Bytes of a read that are shown at most.
PAYLOAD = 64


def _peerOf(connection: Connection) -> str:
    return tellPeer(peerOf(connection.transport))


class ConnectionLog:
    """
    A line when a connection opens, for the peer's FIN or our end, and when it is gone.

    :param listener: what names the listener in each line.
    """

    def __init__(self, listener: str) -> None:
        self._listener = listener
        # Those whose end by us was told; written by ended and closed.
        self._ended: set[Connection] = set()

    def opened(self, connection: Connection) -> None:
        """``opened raw tcp 127.0.0.1:1234 id=k4x2mq9d-1f peer=127.0.0.1:40000``"""
        _log.info(
            "opened {listener} id={id} peer={peer}",
            event="opened",
            id=connection.id,
            listener=self._listener,
            peer=_peerOf(connection),
        )

    def layered(self, connection: Connection, name: str, line: str) -> None:
        """``tls … version=TLSv1.3``: what a layer has to say, once all of them are done."""
        _log.info(
            "{_layer} {listener} id={id} peer={peer} {_line}",
            event=name,
            _layer=name,
            id=connection.id,
            listener=self._listener,
            peer=_peerOf(connection),
            _line=line,
            **{name: connection.transport.facts().get(name)},
        )

    def inputEnded(self, connection: Connection) -> None:
        """``eof …``: FIN, not RST."""
        _log.info(
            "eof {listener} id={id} peer={peer} in={bytesIn}",
            event="eof",
            id=connection.id,
            listener=self._listener,
            peer=_peerOf(connection),
            bytesIn=connection.bytesIn,
        )

    def ended(self, connection: Connection) -> None:
        """
        ``ended … reason=idle owed=0``: we have ended it, before the peer did; once.

        ``owed`` is what the peer has not acknowledged by then, in bytes.
        """
        if connection in self._ended:
            return
        self._ended.add(connection)
        _log.info(
            "ended {listener} id={id} peer={peer} reason={reason} owed={owed}",
            event="ended",
            id=connection.id,
            listener=self._listener,
            peer=_peerOf(connection),
            reason=(connection.reason or Reason.EOF).value,
            owed=connection.unacknowledged(connection.transport.unsent()),
        )

    def closed(self, connection: Connection, now: float) -> None:
        """
        ``closed … in=5 out=5 seconds=0.1 reason=eof end=fin``; end is fin, rst or abort.

        What failed in TLS, or in a PROXY header, follows as ``failure='NO_SHARED_CIPHER'``.
        """
        self._ended.discard(connection)
        failure = connection.transport.failure
        _log.info(
            "closed {listener} id={id} peer={peer} in={bytesIn} out={bytesOut}"
            " seconds={seconds:.1f} reason={reason} end={end}{_failure}",
            event="closed",
            id=connection.id,
            listener=self._listener,
            peer=_peerOf(connection),
            bytesIn=connection.bytesIn,
            bytesOut=connection.bytesOut,
            seconds=round(now - connection.openedAt, 3),
            reason=(connection.reason or Reason.EOF).value,
            end=connection.endedHow,
            endedBy=connection.endedBy,
            cut=connection.cut,
            failure=failure,
            _failure=f" failure={failure!r}" if failure else "",
        )

    def payload(self, connection: Connection, data: bytes) -> None:
        """``payload … size=5 data=b'hello'``: at most `PAYLOAD` bytes, escaped."""
        _log.info(
            "payload {listener} id={id} peer={peer} size={size} data={data!r}",
            event="payload",
            id=connection.id,
            listener=self._listener,
            peer=_peerOf(connection),
            size=len(data),
            data=bytes(data[:PAYLOAD]),
        )


class RefusalLog:
    """
    One line a second at most about whom a listener refused, however many there are.

    :param listener: what names the listener in the line.
    :param turnedAway: tells how many there were so far, by reason.
    :param refused: has one of them for an example.
    """

    def __init__(
        self, listener: str, turnedAway: Callable[[], Counter[str]], refused: Refusals
    ) -> None:
        self._listener = listener
        self._turnedAway = turnedAway
        self._refused = refused
        self._told = Counter(turnedAway())

    def sweep(self, now: float) -> None:
        """See `echod.connection.sweep.Swept`."""
        self.tell()

    def tell(self) -> None:
        """Tell of those who were refused since the last time, and who one of them was."""
        refused = self._turnedAway()
        new = refused - self._told
        example, self._refused.example = self._refused.example, None
        if new:
            self._told = Counter(refused)
            reasons = " ".join(f"{reason}={count}" for reason, count in sorted(new.items()))
            peer = tellPeer(example)
            _log.warn(
                "refused {listener} {_reasons}{_example}",
                event="refused",
                listener=self._listener,
                reasons=dict(new),
                example=peer or None,
                _reasons=reasons,
                _example=f" example={peer}" if peer else "",
            )


class SlowLog:
    """
    One line a second at most about what held the reactor.

    :param monotonic: the clock.
    :ivar count: how often something did.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._quietUntil = -math.inf
        self.count = 0

    def __call__(self, descriptor: object, seconds: float) -> None:
        """``descriptor`` was served for so long."""
        self.count += 1
        now = self._monotonic()
        if now < self._quietUntil:
            return
        self._quietUntil = now + 1
        protocol = getattr(descriptor, "protocol", None)
        owner = getattr(protocol, "owner", None)
        _log.warn(
            "slow {listener} protocol={protocol} milliseconds={milliseconds} count={count}",
            event="slow",
            listener=repr(descriptor) if owner is None else owner.describe(),
            protocol=type(protocol).__name__ if protocol is not None else "none",
            milliseconds=round(seconds * 1000),
            count=self.count,
        )
