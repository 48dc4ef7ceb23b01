"""
What strangers' bytes and operators' texts meet, as functions of bytes that must not fail.

Each raises only if a promise is broken.  `test_fuzz` gives them random inputs; with atheris
(coverage-guided, https://github.com/google/atheris) as long as you like::

    python -m tests.fuzz.targets -max_total_time=60
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

from echod.config.endpoints import parseEndpoint
from echod.config.settings import parseConfiguration
from echod.errors import ConfigurationError, EchodError, FramingError, MalformedHeader
from echod.wire.framing import Framing, fixed, int8, int16, int32, lines, netstring
from echod.wire.networks import Networks, sourceOf
from echod.wire.proxy_binary import LONGEST
from echod.wire.proxy_header import parseHeader
from echod.wire.proxy_values import ProxyHeader
from echod.wire.syn import parseSYN
from echod.wire.tcp_info import parseTCPInfo

__all__ = ["TARGETS", "anyTarget"]

FRAMINGS: dict[str, Framing] = {
    "lines": lines,
    "int8": int8,
    "int16": int16,
    "int32": int32,
    "netstring": netstring,
    "fixed": fixed(7),
}


def _feed(framing: Framing, maxLength: int, pieces: list[bytes]) -> tuple[bytes, int, bool]:
    """What comes out of a framer, how many messages that is, and whether a fault ended it."""
    framer = framing(maxLength)
    out = []
    for piece in pieces:
        try:
            out.append(framer.feed(piece))
        except FramingError as error:
            out.append(error.complete)
            return b"".join(out), framer.messages, True
        if framer.pending > maxLength + 1100:
            raise AssertionError(f"{framer.pending} bytes are held, at most {maxLength} are one")
    return b"".join(out), framer.messages, False


def framer(framing: Framing) -> Callable[[bytes], None]:
    """Any bytes in any pieces give the same blocks, a beginning of what was fed."""

    def target(data: bytes) -> None:
        if len(data) < 3:
            return
        maxLength, step = data[0] * 4, 1 + data[1] % 64
        data = data[2:]
        whole = _feed(framing, maxLength, [data])
        pieces = [data[at : at + step] for at in range(0, len(data), step)]
        split = _feed(framing, maxLength, pieces)
        assert whole == split, (whole, split)
        block, messages, _ = whole
        assert data.startswith(block)
        parts = list(framing(maxLength).split(block))
        assert b"".join(message for _, message in parts) == block
        assert len(parts) == messages
        assert all(len(payload) <= maxLength for payload, _ in parts)

    return target


def _checkLine(error: EchodError, longest: int | None = None) -> None:
    assert str(error).isprintable()
    assert longest is None or len(str(error)) <= longest


def settings(data: bytes) -> None:
    """Any text is a configuration or a `ConfigurationError` of one printable line."""
    try:
        parseConfiguration(data.decode(errors="surrogateescape"))
    except ConfigurationError as error:
        _checkLine(error)


def endpoint(data: bytes) -> None:
    """The same for endpoints."""
    try:
        parseEndpoint(data.decode(errors="surrogateescape"))
    except ConfigurationError as error:
        _checkLine(error)


def networks(data: bytes) -> None:
    """The same for networks; whoever is let in or not, an answer comes."""
    allow, _, deny = data.decode("latin-1").partition(";")
    try:
        known = Networks(allow.split(","), deny.split(",") if deny else [])
    except ConfigurationError as error:
        _checkLine(error)
        return
    for host in ("192.0.2.1", "::1", "::ffff:192.0.2.1", "fe80::1%eth0"):
        known.admit(host)
        sourceOf(host, (24, 64))


def _parse(data: bytes, datagram: bool) -> tuple[ProxyHeader | None, int] | None:
    """What `parseHeader` finds; ``None`` for a `MalformedHeader` of one short line."""
    try:
        return parseHeader(data, datagram=datagram)
    except MalformedHeader as error:
        _checkLine(error, 200)
        return None


def proxyHeader(data: bytes) -> None:
    """Any bytes are a header, may become one, or cannot; so they remain whatever comes next."""
    datagram, data = data[:1] == b"d", data[1:]
    whole = _parse(data, datagram)
    for count in range(len(data) + 1):
        found = _parse(data[:count], datagram)
        if found != (None, count):
            assert found == whole
            break
    assert found == whole
    if whole is not None and whole[0] is not None:
        assert whole[1] == count <= LONGEST
        assert _parse(data + data, datagram) == whole


def syn(data: bytes) -> None:
    """Any bytes are a SYN, whatever follows it, or none; what it tells is JSON."""
    found = parseSYN(data)
    json.dumps(found)
    assert found is None or parseSYN(data + data) == found


def tcpInfo(data: bytes) -> None:
    """Any bytes are a part of what the kernel tells; a longer part tells the same, and more."""
    info = parseTCPInfo(data)
    json.dumps(info)
    assert parseTCPInfo(data[:-1]).items() <= info.items()


TARGETS: dict[str, Callable[[bytes], None]] = {
    **{name: framer(framing) for name, framing in FRAMINGS.items()},
    "settings": settings,
    "endpoint": endpoint,
    "networks": networks,
    "proxyHeader": proxyHeader,
    "syn": syn,
    "tcpInfo": tcpInfo,
}


def anyTarget(data: bytes) -> None:
    """The first byte chooses one."""
    if data:
        [*TARGETS.values()][data[0] % len(TARGETS)](data[1:])


if __name__ == "__main__":
    import atheris

    atheris.instrument_all()
    atheris.Setup(sys.argv, anyTarget)
    atheris.Fuzz()
