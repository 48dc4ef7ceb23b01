"""
A whole configuration as typed values, and the TOML that it is read from.

Pure: text in, values out, or a `ConfigurationError` whose one line names the place and the mend.  A
value is looked up in this order: the listener's own key, ``[defaults]`` (the command line's options
over the file's), what the protocol prefers, the defaults of `echod.config.limits`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from echod.config.conversion import convert
from echod.config.limits import Limits, Seconds
from echod.errors import ConfigurationError
from echod.wire.keys import keyOf

__all__ = ["Configuration", "ListenerSettings", "parseConfiguration", "resolveLimits"]


class ListenerSettings(Limits, frozen=True, kw_only=True, forbid_unknown_fields=True, rename=keyOf):
    """
    One ``[[listener]]`` of the file, as far as it can be read without its protocol.

    :ivar protocol: what is served.
    :ivar endpoint: where it is served.
    :ivar options: ``[listener.options]``, the protocol's own.
    :ivar tls: ``[listener.tls]``: its certificates.
    :ivar proxy: networks whose connections begin with a PROXY header; nobody else may come.  The
        limits then are about the clients that the headers tell of.
    """

    protocol: str
    endpoint: str
    options: dict[str, Any] = msgspec.field(default_factory=dict)
    tls: dict[str, Any] | None = None
    proxy: list[str] | None = None


class Configuration(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename=keyOf):
    """
    A whole configuration.

    :ivar drainDelay: ``health`` says ``draining`` meanwhile; all else goes on.
    :ivar drainTimeout: Connections that are left then are reset.
    :ivar logPayload: Whatever is not printable is escaped.
    :ivar logFormat: See [the log](log.md#for-programs).
    :ivar defaults: ``[defaults]``, limits for all listeners; only the keys that are there.
    :ivar listener: the ``[[listener]]`` tables; without one, three default listeners are served.
    """

    drainDelay: Annotated[
        Seconds, Meta(description="seconds from SIGTERM to the drain, for balancers to notice")
    ] = 0.0
    drainTimeout: Annotated[
        Seconds,
        Meta(description="seconds from the drain's beginning to the end of the last connection"),
    ] = 10.0
    logConnections: Annotated[
        bool, Meta(description="log when a connection opens, half-closes and ends")
    ] = False
    logPayload: Annotated[bool, Meta(description="log the first 64 bytes of whatever is read")] = (
        False
    )
    logFormat: Annotated[
        Literal["text", "json", "journal"],
        Meta(description="what lines of the log are: text, json, or journal for systemd's"),
    ] = "text"
    defaults: dict[str, Any] = msgspec.field(default_factory=dict)
    listener: list[dict[str, Any]] | None = None


def parseConfiguration(text: str) -> Configuration:
    """
    Read a TOML document.

    Options of a protocol are left as they stand: only the protocol knows them.

    :raises ConfigurationError: naming the place.
    """
    try:
        # Half a surrogate pair is no text, and msgspec would say so in its own words.
        text.encode()
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        # TOMLDecodeError, and what its parser lets through: numbers of too many digits,
        # arrays in arrays in arrays.
        raise ConfigurationError(f"not TOML: {error}") from error
    configuration = convert(document, Configuration)
    convert(configuration.defaults, Limits, "$.defaults")
    if configuration.listener is not None:
        if not configuration.listener:
            raise ConfigurationError("$.listener: is empty; add a [[listener]] table or none")
        for index, listener in enumerate(configuration.listener):
            convert(listener, ListenerSettings, f"$.listener[{index}]")
    return configuration


def resolveLimits(*layers: Mapping[str, Any]) -> Limits:
    """
    One `Limits` of several layers, the later ones over the earlier; other keys are ignored.

    The layers have been checked before, each at its own place.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        merged.update((key, layer[key]) for key in Limits.__struct_encode_fields__ if key in layer)
    return convert(merged, Limits)
