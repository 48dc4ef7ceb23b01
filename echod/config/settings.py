"""
The configuration as typed values, and the TOML that it is read from.

Pure: text in, values out, or a `ConfigurationError` whose one line names the place as
msgspec prints it (``$.listener[1].options.prefix``) and the mend.  A value is looked up
in this order: the listener's own key, ``[defaults]`` (the command line's options over the
file's), what the protocol prefers, the defaults below.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from echod.errors import ConfigurationError
from echod.wire.keys import keyOf
from echod.wire.networks import Networks

__all__ = [
    "CertificateSettings",
    "Configuration",
    "Limits",
    "ListenerSettings",
    "TLSSettings",
    "convert",
    "parseConfiguration",
    "resolveLimits",
]

#: What may be asked for (RFC 6066 section 3), and a ``*`` for its first part.
_ASKED_FOR = re.compile(r"(\*\.)?[\w-]+(\.[\w-]+)*", re.ASCII)
#: Characters of the longest number that is shown.
_NUMBER = 32
_YEAR = 365 * 24 * 3600

# Units, as the documentation shows them.
_SECONDS = {"unit": "s"}
_BYTES = {"unit": "bytes"}
_BYTE_RATE = {"unit": "bytes/s"}

Seconds = Annotated[float, Meta(ge=0, le=_YEAR, extra=_SECONDS)]


class Limits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename=keyOf):
    """
    What a listener allows; the keys of ``[defaults]`` and of each ``[[listener]]``.

    The description of a field is its help; what else there is to know stands here.  The table of
    limits in docs/configuration.md is computed from both.

    :ivar maxConnections: At the limit the connection that has been idle longest, for a second at
        least, makes room; if there is none, the new one is closed.
    :ivar backlog: A socket that was passed keeps its own.
    :ivar bindTimeout: This is at the start alone.  If the address has not come by then, the exit
        status is 75; with 0 it is 1.
    :ivar idleTimeout: Where the protocol has messages, a whole message counts, not a byte.
    :ivar stallTimeout: Then the connection is reset.  Below 20 a line at start says that slow
        readers are cut.
    :ivar lingerTimeout: Then the connection is reset.
    :ivar maxAge: Then comes our FIN.
    :ivar handshakeTimeout: It runs from accepting, over both together.  0 is refused.
    :ivar firstByteTimeout: Then comes our FIN.
    :ivar maxBytes: Then comes our FIN.
    :ivar bytesPerSecond: A second's worth may come at once.  Then reading rests; nothing is
        dropped.
    :ivar listenerBytesPerSecond: All connections of the listener share it, and take turns.
    :ivar maxPerSource: Not for UNIX sockets, whose mode says who may come, unless ``proxy``.
    :ivar newPerSecond: Not for UNIX sockets, unless ``proxy``.
    :ivar sourcePrefix: With ``[32, 64]`` each IPv6 network of 64 bits is one source.  0: all
        addresses are one source.
    :ivar allow: Of ``allow`` and ``deny`` the longest prefix decides.  Not for UNIX sockets,
        unless ``proxy``.
    :ivar deny: See ``allow``.
    :ivar datagramsPerSecond: These are the answers of UDP.  All sources together get ten times
        as many.
    :ivar reflectorPorts: These are source ports of UDP.
    :ivar keepalive: After six questions without an answer the peer is gone.
    """

    maxConnections: Annotated[
        int,
        Meta(
            ge=1, le=1_000_000, description="connections at a time", extra={"unit": "connections"}
        ),
    ] = 1000
    backlog: Annotated[
        int,
        Meta(
            ge=1,
            le=65535,
            description="connections that wait to be accepted",
            extra={"unit": "connections"},
        ),
    ] = 4096
    bindTimeout: Annotated[
        Seconds, Meta(description="seconds to try an address that is not there yet; 0: once")
    ] = 0.0
    idleTimeout: Annotated[Seconds, Meta(description="seconds without a byte; 0: never")] = 0.0
    stallTimeout: Annotated[
        Seconds, Meta(description="seconds that unsent bytes may stand still; 0: for ever")
    ] = 60.0
    lingerTimeout: Annotated[
        Seconds, Meta(description="seconds to wait for the peer's end after ours; 0: none")
    ] = 5.0
    maxAge: Annotated[Seconds, Meta(description="seconds a connection may live; 0: for ever")] = 0.0
    handshakeTimeout: Annotated[
        float,
        Meta(
            gt=0,
            le=_YEAR,
            description="seconds for a PROXY header and the TLS handshake",
            extra=_SECONDS,
        ),
    ] = 10.0
    firstByteTimeout: Annotated[
        Seconds, Meta(description="seconds until a peer must have sent something; 0: never")
    ] = 0.0
    maxBytes: Annotated[
        int,
        Meta(
            ge=0,
            le=1 << 53,
            description="bytes that one connection may send; 0: no limit",
            extra=_BYTES,
        ),
    ] = 0
    bytesPerSecond: Annotated[
        int,
        Meta(
            ge=0,
            le=1 << 40,
            description="bytes a second read of a connection; 0: no limit",
            extra=_BYTE_RATE,
        ),
    ] = 0
    listenerBytesPerSecond: Annotated[
        int,
        Meta(
            ge=0,
            le=1 << 40,
            description="bytes a second read of all; 0: no limit",
            extra=_BYTE_RATE,
        ),
    ] = 0
    maxPerSource: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="connections of one source; 0: no limit",
            extra={"unit": "connections"},
        ),
    ] = 0
    newPerSecond: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="new connections a second of one source; 0: any",
            extra={"unit": "connections/s"},
        ),
    ] = 0
    sourcePrefix: Annotated[
        tuple[Annotated[int, Meta(ge=0, le=32)], Annotated[int, Meta(ge=0, le=128)]],
        Meta(
            description="bits of IPv4 and IPv6 addresses that tell sources apart [32,128]",
            extra={"unit": "bits"},
        ),
    ] = (32, 128)
    allow: Annotated[
        list[str], Meta(description="networks that may come; if given, nobody else may")
    ] = msgspec.field(default_factory=list)
    deny: Annotated[list[str], Meta(description="networks that may not come")] = msgspec.field(
        default_factory=list
    )
    datagramsPerSecond: Annotated[
        int,
        Meta(
            ge=0,
            le=10_000_000,
            description="datagrams a second of one source; 0: no limit",
            extra={"unit": "datagrams/s"},
        ),
    ] = 10_000
    reflectorPorts: Annotated[
        list[Annotated[int, Meta(ge=0, le=65535)]] | None,
        Meta(description="ports whose datagrams are not answered; those of known reflectors"),
    ] = None
    keepalive: Annotated[
        int,
        Meta(ge=0, le=32767, description="idle seconds before TCP asks; 0: off", extra=_SECONDS),
    ] = 60

    def __post_init__(self) -> None:
        try:
            Networks(self.allow, self.deny)
        except ConfigurationError as error:
            # So that msgspec says where.
            raise ValueError(str(error)) from error


class CertificateSettings(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename=keyOf
):
    """
    A certificate and its key, as paths of PEM files.

    :ivar cert: the certificate, then those that link it to its authority.
    :ivar key: the key, if it is not in the same file.
    """

    cert: Annotated[str, Meta(min_length=1)]
    key: str = ""


class TLSSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename=keyOf):
    """
    ``[listener.tls]``.

    :ivar cert: a PEM file: the certificate, then those that link it to its authority.  It is also
        for clients that ask for no name in ``names``.
    :ivar key: a PEM file: the key, if it is not in the same file.
    :ivar ca: a PEM file: the authorities of clients' certificates.
    :ivar clientAuth: whether a client must show a certificate, may, or is not asked.
    :ivar alpn: protocols that may be chosen (RFC 7301).  A client that offers only others is
        served without one, because the standard library cannot refuse it as section 3.2 there
        wants.
    :ivar tickets: whether sessions can be resumed with tickets (RFC 8446 section 2.2).  OpenSSL
        remembers sessions of TLS 1.2 without tickets, whatever is said here: 20 480 a listener,
        for two hours, of 1 KiB each, and of 12 KiB with a client's certificate.
    :ivar minimumVersion: the oldest version that is spoken.
    :ivar names: other certificates, by the name that the client asks for (SNI, RFC 6066 section
        3): ``a.example`` or ``*.example``, in ASCII and without a dot at the end.
    """

    cert: Annotated[str, Meta(min_length=1)]
    key: str = ""
    ca: str = ""
    clientAuth: Literal["none", "optional", "require"] = "none"
    alpn: list[Annotated[str, Meta(pattern="^[!-~]{1,255}$")]] = msgspec.field(
        default_factory=lambda: ["echo"]
    )
    tickets: bool = False
    minimumVersion: Literal["1.2", "1.3"] = "1.2"
    names: dict[str, CertificateSettings] = msgspec.field(default_factory=dict)

    def within(self, directory: str) -> TLSSettings:
        """The same, with relative paths beginning at ``directory``."""

        def join(path: str) -> str:
            return str(PurePosixPath(directory, path)) if path else ""

        return msgspec.structs.replace(
            self,
            cert=join(self.cert),
            key=join(self.key),
            ca=join(self.ca),
            names={
                name: CertificateSettings(cert=join(pair.cert), key=join(pair.key))
                for name, pair in self.names.items()
            },
        )

    def __post_init__(self) -> None:
        if (self.clientAuth == "none") == bool(self.ca):
            raise ValueError(
                "client_auth 'optional' or 'require' and ca, the authorities, go together"
            )
        for name in self.names:
            if not _ASKED_FOR.fullmatch(name):
                raise ValueError(
                    f"no client asks for {name!r} in names: write it as a.example or *.example, "
                    "in ASCII (xn--…), without a dot at the end"
                )


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
    defaults: dict[str, Any] = msgspec.field(default_factory=dict)
    listener: list[dict[str, Any]] | None = None


T = TypeVar("T", bound=Struct)


def convert(value: Mapping[str, Any], kind: type[T], place: str = "$", *, strict: bool = True) -> T:
    """
    Make a ``kind`` of plain values.

    :param place: where ``value`` stands in the document, for the message.
    :param strict: with ``False``, text is read as a number where a number is wanted.
    :raises ConfigurationError: what is wrong, where, and which keys there are.
    """
    try:
        return msgspec.convert(dict(value), kind, strict=strict)
    except msgspec.ValidationError as error:
        message = str(error)
        what, at, path = message.partition(" - at `$")
        where = place + path.removesuffix("`") if at else place
        key = path.removeprefix(".").removesuffix("`")
        there = _typeAt(kind, key)
        if "unknown field" in what and isinstance(there, msgspec.inspect.StructType):
            what += f" (there are: {', '.join(sorted(there.cls.__struct_encode_fields__))})"
        elif "enum" in what and (choices := _choices(there)):
            what += f" (there are: {', '.join(map(repr, choices))})"
        elif (" >= " in what or " <= " in what) and key in value:
            got = repr(value[key])
            # Longer, it is no number.
            what += f", not {got}" * (len(got) <= _NUMBER)
        raise ConfigurationError(f"{where}: {what}") from error


# Any: msgspec tells of types by classes without a common one; so in the two below.
def _typeAt(kind: type[Struct], path: str) -> Any:
    """What msgspec knows of the type at a path of keys, as they are written; or ``None``."""
    # Any: as above.
    info: Any = msgspec.inspect.type_info(kind)
    for step in re.findall(r"\[.*?\]|[^.\[]+", path):
        if step.startswith("["):
            info = getattr(info, "value_type", getattr(info, "item_type", None))
        else:
            fields = getattr(info, "fields", ())
            info = next((field.type for field in fields if field.encode_name == step), None)
        while isinstance(info, msgspec.inspect.Metadata):
            info = info.type
    return info


# Any: as above.
def _choices(info: Any) -> list[Any]:
    """The values of a type that has few."""
    if isinstance(info, msgspec.inspect.LiteralType):
        return list(info.values)
    if isinstance(info, msgspec.inspect.EnumType):
        return [member.value for member in info.cls]
    if isinstance(info, msgspec.inspect.UnionType):
        return [choice for each in info.types for choice in _choices(each)]
    return []


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
