"""
What each event of a log in JSON holds: the schema of docs/log-schema.json, and a strict reader.

`schema` makes the file, which ``python -m tests.documentation`` writes; `read` holds a line to it:
a field that is missing, that nobody has described, or of another type is an error.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta, Struct

from echod.tls.facts import TLSFacts
from echod.wire.keys import keyOf

__all__ = ["EOF", "EVENTS", "SCHEMA", "Closed", "Opened", "read", "schema"]

#: Where the schema is, from the project's root.
SCHEMA = "docs/log-schema.json"

Time = Annotated[str, Meta(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")]
Count = Annotated[int, Meta(ge=0)]


def _word(name: str) -> str:
    return keyOf(name)


class _Event(
    Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    rename=keyOf,
    tag_field="event",
    tag=_word,
):
    """Every line: when, how bad it is, and the line of the text."""

    time: Time
    level: Literal["debug", "info", "warn", "error", "critical"]
    message: str


class _OfListener(_Event, frozen=True, kw_only=True):
    """About a listener, by its description."""

    listener: str


class _OfConnection(_OfListener, frozen=True, kw_only=True):
    """About a connection."""

    id: str
    peer: str


class Message(_Event, frozen=True, kw_only=True):
    """A line of Twisted's or of a plugin's, or one of echod's that no program needs."""

    namespace: str | None


class Failure(_Event, frozen=True, kw_only=True):
    """Something has raised; one of echod's events with a traceback has its own word."""

    namespace: str | None
    traceback: str


class Listening(_OfListener, frozen=True, kw_only=True):
    """A listener has its socket."""


class Opened(_OfConnection, frozen=True, kw_only=True):
    """A connection has come."""


class TLS(_OfConnection, frozen=True, kw_only=True):
    """Its TLS handshake is done."""

    tls: TLSFacts


class EOF(_OfConnection, frozen=True, kw_only=True):
    """The peer has sent FIN, after so many bytes."""

    bytesIn: Count


class Ended(_OfConnection, frozen=True, kw_only=True):
    """echod has ended it, with FIN or RST; so many bytes are not acknowledged by then."""

    reason: str
    owed: Count


class Closed(_OfConnection, frozen=True, kw_only=True):
    """It is gone; `cut` counts the bytes that it was still owed when echod gave up."""

    bytesIn: Count
    bytesOut: Count
    seconds: Annotated[float, Meta(ge=0)]
    reason: str
    end: Literal["fin", "rst", "abort"]
    endedBy: Literal["peer", "network", "us"]
    cut: Count
    failure: str | None = None


class Payload(_OfConnection, frozen=True, kw_only=True):
    """A read of so many bytes; the first 64 of them as base64 (RFC 4648)."""

    size: Count
    data: Annotated[str, Meta(extra_json_schema={"contentEncoding": "base64"})]


class Refused(_OfListener, frozen=True, kw_only=True):
    """So many were refused since the last such line, by reason, and one of them."""

    reasons: dict[str, Annotated[int, Meta(gt=0)]]
    example: str | None = None


class Slow(_OfListener, frozen=True, kw_only=True):
    """One event held everybody up; `count` is how many have so far."""

    protocol: str
    milliseconds: Count
    count: Count


class Counters(_Event, frozen=True, kw_only=True):
    """SIGUSR1: the counters."""

    counters: dict[str, Any]


class Signal(_Event, frozen=True, kw_only=True):
    """A signal came, or stays ignored."""

    signal: str


class Draining(_Event, frozen=True, kw_only=True):
    """A signal has begun the drain."""

    signal: str


class Cut(_Event, frozen=True, kw_only=True):
    """The drain has cut so many connections that were still owed bytes."""

    connections: Count


class Left(_Event, frozen=True, kw_only=True):
    """So many connections did not end with the drain."""

    left: Count


class Note(_Event, frozen=True, kw_only=True):
    """What an operator might like to know of the configuration."""

    note: str


class ReloadRefused(_Event, frozen=True, kw_only=True):
    """A reload changed nothing."""

    reason: str
    traceback: str | None = None


class Reloaded(_Event, frozen=True, kw_only=True):
    """A reload went well; so many listeners are new, changed, gone."""

    new: Count
    changed: Count
    gone: Count


class Changed(_OfListener, frozen=True, kw_only=True):
    """A reload has changed these keys of a listener's table."""

    keys: list[str]


class Settings(_Event, frozen=True, kw_only=True):
    """A reload has changed these keys, which are for all listeners."""

    keys: list[str]


class Gone(_OfListener, frozen=True, kw_only=True):
    """A listener is gone with a reload; its connections go on."""


class CertificateRenewed(_OfListener, frozen=True, kw_only=True):
    """A reload has found another certificate; `name` is empty for the listener's own."""

    path: str
    name: str
    notAfter: str


class CertificateExpires(CertificateRenewed, frozen=True, kw_only=True):
    """A certificate expires within 14 days, or has; so many seconds are left, or are past."""

    seconds: int


class NotStarted(_Event, frozen=True, kw_only=True):
    """The daemon cannot start."""

    reason: str


class SocketLost(_OfListener, frozen=True, kw_only=True):
    """Another process has shut a listener's socket down; the daemon ends."""


class Unwell(_Event, frozen=True, kw_only=True):
    """The daemon is not well."""

    faults: list[str]


class Lost(_Event, frozen=True, kw_only=True):
    """So many lines of the log are lost here."""

    lines: Count
    reason: str


Event: TypeAlias = (
    Message
    | Failure
    | Listening
    | Opened
    | TLS
    | EOF
    | Ended
    | Closed
    | Payload
    | Refused
    | Slow
    | Counters
    | Signal
    | Draining
    | Cut
    | Left
    | Note
    | ReloadRefused
    | Reloaded
    | Changed
    | Settings
    | Gone
    | CertificateRenewed
    | CertificateExpires
    | NotStarted
    | SocketLost
    | Unwell
    | Lost
)

#: The words that there are.
EVENTS = sorted(str(kind.__struct_config__.tag) for kind in Event.__args__)


def read(line: str | bytes) -> Event:
    """
    What a line of the log holds.

    :raises msgspec.ValidationError: it is not as the schema says.
    :raises msgspec.DecodeError: it is no JSON.
    """
    found: Event = msgspec.json.decode(line, type=Event)
    return found


def schema() -> str:
    """The text of the schema: JSON Schema 2020-12, open for fields that come later."""
    (found,), parts = msgspec.json.schema_components([Event], ref_template="#/$defs/{name}")
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A line of echod's log in JSON",
        **found,
        "$defs": parts,
    }
    text = msgspec.json.encode(_opened(document), order="deterministic")
    return msgspec.json.format(text, indent=1).decode() + "\n"


# Any: a part of a document of JSON.
def _opened(part: Any) -> Any:
    """The same, without a word against further fields."""
    if isinstance(part, dict):
        return {key: _opened(each) for key, each in part.items() if key != "additionalProperties"}
    return [*map(_opened, part)] if isinstance(part, list) else part
