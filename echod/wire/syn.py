"""
The segment that asked for a connection, as it arrived: `parseSYN`.

It tells what the network between has made of what the client has sent: hops (``ttl``), a NAT's
port, a clamped ``mss``, options that were taken out.  Bytes are those that Linux keeps for
``TCP_SAVED_SYN``: the header of IPv4 (RFC 791) or IPv6 (RFC 8200) and that of TCP (RFC 9293), with
their options.
"""

from __future__ import annotations

import struct

__all__ = ["parseSYN"]

_IPV4, _IPV6 = 4, 6
_TCP = 6
#: Bytes of the headers without options; a length in them counts words of four bytes.
_IPV4_SIZE, _IPV6_SIZE, _TCP_SIZE, _WORD = 20, 40, 20, 4
#: IPv6's headers before TCP's: hop-by-hop, routing, fragment, authentication, destination.  Each
#: says how long it is, in eight bytes but for the first eight; the third is of eight, and of the
#: fourth the word is four bytes, but for the first two.
_FRAGMENT, _AUTHENTICATION = 44, 51
_EXTENSIONS = frozenset({0, 43, _FRAGMENT, _AUTHENTICATION, 60})
#: A header tells its length in its second byte.
_LEAST_EXTENSION = 2

_TCP_HEADER = struct.Struct("!HHIIBBH")  # to the window
#: Of the byte with the flags.
_ECE, _CWR = 0x40, 0x80

#: Kinds of options (IANA, "TCP Option Kind Numbers").
_END, _NOP, _MSS, _WINDOW_SCALE, _TIMESTAMPS, _FAST_OPEN = 0, 1, 2, 3, 8, 34
_NAMES = {
    _END: "end",
    _NOP: "nop",
    _MSS: "mss",
    _WINDOW_SCALE: "window_scale",
    4: "sack_permitted",
    5: "sack",
    _TIMESTAMPS: "timestamps",
    19: "md5",
    29: "ao",
    30: "mptcp",
    _FAST_OPEN: "fast_open",
}
#: Bytes of an option's kind and length.
_OPTION_SIZE = 2

_SHORT = struct.Struct("!H")


def parseSYN(data: bytes) -> dict[str, object] | None:
    """
    What a SYN tells, as values for JSON; docs/insight.md has the keys.

    :returns: ``None`` if these are no headers of TCP over IP.
    """
    if not data:
        return None
    found = _network(data)
    if found is None:
        return None
    version, ttl, tos, offset = found
    if len(data) < offset + _TCP_SIZE:
        return None
    source, _, _, _, words, flags, window = _TCP_HEADER.unpack_from(data, offset)
    size = (words >> 4) * _WORD
    if size < _TCP_SIZE or len(data) < offset + size:
        return None
    return {
        "ip": version,
        "ttl": ttl,
        "tos": tos,
        "dscp": tos >> 2,
        "ecn": tos & 3,
        "source_port": source,
        "window": window,
        "ece": bool(flags & _ECE),
        "cwr": bool(flags & _CWR),
        "sack_permitted": False,
        "timestamps": False,
        **_options(data[offset + _TCP_SIZE : offset + size]),
    }


def _network(data: bytes) -> tuple[int, int, int, int] | None:
    """The version of IP, its hops and its class, and where TCP's header begins."""
    version = data[0] >> 4
    if version == _IPV4 and len(data) >= _IPV4_SIZE:
        size = (data[0] & 0xF) * _WORD
        if size < _IPV4_SIZE or data[9] != _TCP:
            return None
        return version, data[8], data[1], size
    if version != _IPV6 or len(data) < _IPV6_SIZE:
        return None
    tos = (data[0] & 0xF) << 4 | data[1] >> 4
    kind, offset = data[6], _IPV6_SIZE
    while kind in _EXTENSIONS:
        if len(data) < offset + _LEAST_EXTENSION:
            return None
        length = data[offset + 1]
        if kind == _FRAGMENT:
            size = 8
        elif kind == _AUTHENTICATION:
            size = (length + 2) * _WORD
        else:
            size = (length + 1) * 8
        kind = data[offset]
        offset += size
    return (version, data[7], tos, offset) if kind == _TCP else None


def _options(data: bytes) -> dict[str, object]:
    """TCP's options; as Linux reads them, up to the first that is malformed."""
    found: dict[str, object] = {}
    order = []
    offset = 0
    while offset < len(data):
        kind = data[offset]
        size = 1
        if kind not in {_END, _NOP}:
            size = data[offset + 1] if offset + 1 < len(data) else 0
            if size < _OPTION_SIZE or offset + size > len(data):
                break
        order.append(_NAMES.get(kind, str(kind)))
        if kind == _END:
            break
        value = data[offset + _OPTION_SIZE : offset + size]
        if kind == _MSS and len(value) == _SHORT.size:
            found["mss"] = _SHORT.unpack(value)[0]
        elif kind == _WINDOW_SCALE and len(value) == 1:
            found["window_scale"] = value[0]
        elif kind == _FAST_OPEN:
            found["fast_open"] = len(value)
        elif kind == _TIMESTAMPS or _NAMES.get(kind) == "sack_permitted":
            found[_NAMES[kind]] = True
        offset += size
    return {**found, "options": order}
