"""
What the log's lines are made of: text, JSON for programs, or text for systemd's journal.

An event of echod's has its word in ``event`` and its values beside it, as plain values; those whose
names begin with ``_`` are for the text alone.  Events without a word, those of Twisted and of
plugins, are ``message``, or ``failure`` where there is a traceback.
"""

from __future__ import annotations

import codecs
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache

import msgspec
from twisted.logger import LogEvent, eventAsText, formatEvent
from twisted.python.failure import Failure
from twisted.python.reflect import safe_str

from echod.wire.keys import keyOf

__all__ = ["FORMATS", "JSONText", "errorLine", "formatForJournal", "formatJSON"]

#: syslog(3)'s priorities, as sd-daemon(3) has them, by the names of levels.
_PRIORITIES = {"debug": 7, "info": 6, "warn": 4, "error": 3, "critical": 2}
#: What an event has besides its values, in the old way (`twisted.python.log`).
_NO_FIELDS = frozenset({"event", "format", "isError", "message", "system", "time"})


class JSONText(str):
    """Text that is JSON already: it stands in a line of JSON as what it is."""

    __slots__ = ()


def formatJSON(event: LogEvent) -> str | None:
    r"""
    One object, in one line of ASCII: whatever is not ASCII is escaped (RFC 8259 section 7).

    So no terminal and no reader takes a part of it for anything else, and no encoding has to be
    known.  Half a surrogate pair becomes the text ``\udc80``.
    """
    message = formatEvent(event)
    failure = event.get("log_failure")
    if failure is None and event.get("isError"):
        # `twisted.python.log.err`; its text has the traceback too.
        failure = event.get("failure")
    word = event.get("event")
    if not (message or failure or word):
        return None
    # Any other's `event` may be whatever it is.
    own = isinstance(word, str)
    fields = {}
    if own:
        for key, value in event.items():
            name = _fieldOf(key)
            if name and value is not None:
                fields[name] = value
    else:
        word = "message" if failure is None else "failure"
        fields["namespace"] = event.get("log_namespace")
    if failure is not None:
        fields["traceback"] = _tracebackOf(failure)
    head = {"time": _timeOf(event), "level": _levelOf(event), "event": word}
    return f"{_encode({**head, **fields, **head, 'message': message})}\n"


def formatForJournal(event: LogEvent) -> str | None:
    """
    Lines that begin with their priority (sd-daemon(3)), without the time: the journal has that.

    Each line of a traceback is one of the journal's, with the same priority.
    """
    text = eventAsText(event, includeTimestamp=False, includeSystem=False)
    if not text:
        return None
    priority = _PRIORITIES[_levelOf(event)]
    return "".join(f"<{priority}>{line}\n" for line in text.split("\n"))


def errorLine(text: str, word: str | None) -> str:
    """
    A line for standard error, whose reader the format ``word`` tells of.

    :param text: why echod cannot start.
    """
    prefix = f"<{_PRIORITIES['error']}>" if word == "journal" else ""
    return f"{prefix}echod: {text}"


#: By the word for them (`log_format`), what makes lines of events; text is as the observer has it
#: that the process was given.
FORMATS: Mapping[str, Callable[[LogEvent], str | None]] = {
    "json": formatJSON,
    "journal": formatForJournal,
}


@lru_cache(1024)
def _fieldOf(key: str) -> str:
    """What a key of an event is called in a line; empty if it is no value of the event's."""
    return "" if key in _NO_FIELDS or key.startswith(("log_", "_")) else keyOf(key)


def _levelOf(event: LogEvent) -> str:
    """The level's name; whatever has none is information."""
    name = getattr(event.get("log_level"), "name", "")
    return name if name in _PRIORITIES else "info"


def _timeOf(event: LogEvent) -> str:
    """RFC 3339, UTC, with milliseconds; now, if it does not say."""
    try:
        moment = datetime.fromtimestamp(event["log_time"], UTC)
    except (KeyError, TypeError, ValueError, OverflowError, OSError):
        moment = datetime.fromtimestamp(time.time(), UTC)
    return f"{moment.replace(tzinfo=None).isoformat(timespec='milliseconds')}Z"


def _tracebackOf(failure: object) -> str:
    try:
        return failure.getTraceback() if isinstance(failure, Failure) else safe_str(failure)
    except Exception as error:
        # What has failed may be anything, and so may what it says of itself.
        return f"(no traceback: {type(error).__name__})"


def _encode(fields: Mapping[str, object]) -> str:
    values = {
        key: msgspec.Raw(value.encode()) if isinstance(value, JSONText) else value
        for key, value in fields.items()
    }
    try:
        encoded = msgspec.json.encode(values, enc_hook=safe_str)
    except Exception:
        # Text with half a surrogate pair, a number of more than 64 bits, a key that is no text.
        words = {_clean(key): _clean(safe_str(value)) for key, value in fields.items()}
        encoded = msgspec.json.encode(words)
    text = encoded.decode()
    if not text.isascii():
        text = text.encode("ascii", _ESCAPE).decode()
    return text.replace("\x7f", "\\u007f")


def _clean(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _escape(error: UnicodeError) -> tuple[str, int]:
    """What is not ASCII as JSON has it: in units of UTF-16."""
    assert isinstance(error, UnicodeEncodeError)
    units = error.object[error.start : error.end].encode("utf-16-be")
    pairs = zip(units[::2], units[1::2], strict=True)
    return "".join(f"\\u{high:02x}{low:02x}" for high, low in pairs), error.end


#: The name of `_escape` among Python's ways to deal with what an encoding has not.
_ESCAPE = "echod-json"
codecs.register_error(_ESCAPE, _escape)
