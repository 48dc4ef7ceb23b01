"""
Every exception that echod raises on purpose.

One base, `EchodError`; its message is one line, meant for a person, and names the value
at fault and the mend.  What an operator got wrong (`ConfigurationError`, `ListenError`)
and what a peer sent wrong (`FramingError`, `MalformedHeader`) are different branches: the first
ends the program, the second ends one connection.  What a coroutine is told by its stream is a third
(`StreamError`).
"""

from __future__ import annotations

import os

__all__ = [
    "AddressMissing",
    "AlreadyReported",
    "BindTimedOut",
    "CheckFailed",
    "ConfigurationError",
    "ConnectFailed",
    "EchodError",
    "FramingError",
    "IncompleteRead",
    "LimitExceeded",
    "ListenError",
    "MalformedHeader",
    "MessageTooLong",
    "NoAnswer",
    "OutputFailed",
    "StreamBusy",
    "StreamClosed",
    "StreamError",
    "StreamLost",
    "StreamTruncated",
    "TLSFailed",
    "UnknownWord",
    "oneLine",
]


def oneLine(text: str) -> str:
    r"""``text`` for a terminal: whatever is not printable becomes ``\n``, ``\x1b`` and the like."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def whatFailed(error: BaseException) -> str:
    """``OSError: no database``: what an error of somebody else's code says, in one line."""
    try:
        text = str(error)
    except Exception:
        text = "(it cannot say what)"
    return oneLine(f"{type(error).__name__}: {text}")


class EchodError(Exception):
    """
    The base of all of echod's own errors; as text always one printable line.

    :cvar status: what a process exits with that one of them ends.
    """

    status = 1

    def __str__(self) -> str:
        return oneLine(super().__str__())


class ConfigurationError(EchodError):
    """An option, a file or a value in it cannot be used; the message says where and why."""


class ListenError(EchodError):
    """A listener could not be bound; the message names its address and the system's reason."""


class AddressMissing(ListenError):
    """The address is no interface's; it may be one's later."""


class BindTimedOut(ListenError):
    """An address has not come within ``bind_timeout``; it may if echod is started again."""

    status = os.EX_TEMPFAIL


class UnknownWord(EchodError):
    """Somebody asked for what there is not; the message names it, and what there is."""


class AlreadyReported(EchodError):
    """
    The process cannot start, or shall not, and has said why already.

    :ivar status: what it exits with.
    """

    def __init__(self, status: int) -> None:
        super().__init__("the reason is told above" if status else "it was stopped meanwhile")
        self.status = status


class CheckFailed(EchodError):
    """
    ``echod check`` has not found what should be there.

    :ivar status: what the process exits with.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class OutputFailed(EchodError):
    """
    Standard output cannot be written; without a message nobody is to be told.

    :ivar status: what the process exits with: neither "wrong usage" nor a fault of the daemon.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class FramingError(EchodError):
    """
    A peer broke the rules of a framing.

    :ivar complete: the bytes of the whole messages that came before the fault and have
        not been returned yet, exactly as they arrived.
    """

    def __init__(self, message: str, complete: bytes = b"") -> None:
        super().__init__(message)
        self.complete = complete


class MessageTooLong(FramingError):
    """A message is, or says that it will be, longer than the configured maximum."""


class MalformedHeader(EchodError):
    """
    A peer, or the proxy before it, sent no PROXY header where one must be, or a wrong one.

    Of what it sent the message has numbers and a few bytes, escaped.
    """


class TLSFailed(EchodError):
    """TLS failed, or its peer is not who it should be."""


class StreamError(EchodError):
    """What was asked of an `echod.kit.stream.Stream` cannot be had."""


class IncompleteRead(StreamError):
    """
    The peer finished before all that was asked for had come.

    :ivar partial: what had come; it is taken out of the stream.
    """

    def __init__(self, partial: bytes) -> None:
        super().__init__(f"the peer finished after {len(partial)} bytes of what was to come")
        self.partial = partial


class LimitExceeded(StreamError):
    """
    There is no delimiter within the limit; the bytes are still in the stream.

    :ivar limit: bytes.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(f"no delimiter within {limit} bytes")
        self.limit = limit


class StreamBusy(StreamError):
    """Somebody else is reading, or writing, already: one call at a time."""


class StreamClosed(StreamError):
    """We have ended the stream, or its output, ourselves."""


class StreamLost(StreamError):
    """The connection is gone; ``__cause__`` is the transport's reason."""


class StreamTruncated(StreamError):
    """TLS failed, or the peer's end came without close_notify: there may have been more."""


class ConnectFailed(StreamError):
    """There is no connection; the message names the address and the reason."""


class NoAnswer(ConnectFailed):
    """There is no connection yet, and the time is up."""
