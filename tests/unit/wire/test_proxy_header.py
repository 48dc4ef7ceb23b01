"""`echod.wire.proxy_header`: every header whole and in pieces, and nothing else taken for one."""

from __future__ import annotations

import itertools
import random
import time
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echod.errors import MalformedHeader
from echod.wire.proxy_binary import LONGEST
from echod.wire.proxy_header import parseDatagram, parseHeader
from echod.wire.proxy_line import LONGEST_LINE
from echod.wire.proxy_values import ProxyHeader, ProxyTLS
from tests.unit.proxyheaders import (
    ALPN,
    AUTHORITY,
    CRC32C,
    DGRAM,
    INET,
    INET6,
    LOCAL,
    NOOP,
    PROXY,
    SIGNATURE,
    UNIQUE_ID,
    UNIX,
    UNSPEC,
    Address,
    formatTLS,
    formatTLV,
    formatV1,
    formatV2,
)

FOUR: tuple[Address, Address] = ("192.0.2.1", 56324), ("192.0.2.2", 443)
SIX: tuple[Address, Address] = ("2001:db8::1", 1), ("2001:db8::2", 65535)
LINE = formatV1(*FOUR)
TOLD = ProxyHeader(version=1, source=FOUR[0], destination=FOUR[1])
BINARY = formatV2(*FOUR)


def told(data: bytes, payload: bytes = b"", *, datagram: bool = False) -> ProxyHeader:
    """The header that is all of ``data``, whatever follows it."""
    header, length = parseHeader(data + payload, datagram=datagram)
    assert header is not None
    assert length == len(data)
    return header


def earliest(data: bytes, *, datagram: bool = False) -> int:
    """How many bytes of ``data`` it takes to be refused."""
    for count in range(len(data) + 1):
        try:
            found = parseHeader(data[:count], datagram=datagram)
        except MalformedHeader as error:
            checkMessage(error)
            return count
        assert found == (None, count)
    raise AssertionError(f"{data!r} is not refused")


def checkMessage(error: MalformedHeader) -> None:
    """One short line that a terminal can take."""
    assert str(error).isprintable()
    assert len(str(error)) < 200


VALID = {
    "TCP4": LINE,
    "TCP6": formatV1(*SIX),
    "the longest TCP6": formatV1(("ffff:" * 7 + "ffff", 65535), ("ffff:" * 7 + "ffff", 65535)),
    "TCP6 in all digits": formatV1(("0000:" * 7 + "0001", 0), ("::ffff:192.0.2.1", 0), "TCP6"),
    "UNKNOWN": b"PROXY UNKNOWN\r\n",
    "UNKNOWN, a space": b"PROXY UNKNOWN \r\n",
    "UNKNOWN with addresses": formatV1(*SIX, "UNKNOWN"),
    "UNKNOWN with anything": b"PROXY UNKNOWN \0\xff\x1b  [31m evil\r\n",
    "UNKNOWN, 107 bytes": b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n",
    "INET": BINARY,
    "INET6": formatV2(*SIX),
    "LOCAL": formatV2(command=LOCAL),
    "LOCAL with addresses": formatV2(*FOUR, command=LOCAL),
    "LOCAL of no known family": formatV2(*FOUR, command=LOCAL, family=14, transport=15),
    "UNSPEC": formatV2(),
    "INET of an unspecified transport": formatV2(*FOUR, transport=UNSPEC),
    "UNIX": formatV2(family=UNIX, addresses=b"/run/\xff".ljust(216, b"\0")),
    "TLVs": formatV2(*FOUR, [formatTLV(AUTHORITY, b"echo.example"), formatTLV(ALPN, b"h2")]),
    "CRC32C": formatV2(*SIX, [formatTLV(NOOP, bytes(3)), formatTLV(NOOP, b"")], checksum=1),
    "the longest": formatV2(*FOUR, [formatTLV(NOOP, bytes(LONGEST - 31))]),
}


def test_everySplit() -> None:
    """P2, P6: however a header is cut, it is whole with its last byte, not before."""
    for header in VALID.values():
        whole = told(header)
        for count in range(len(header)):
            assert parseHeader(header[:count]) == (None, count)
        for payload in (b"\n", b"\r\n", b"hello", header, b"\0" * 5000):
            assert told(header, payload) == whole


def test_realAddressesCount() -> None:
    """P3, P4: where a header tells no client's address there is none."""
    without = [name for name in VALID if told(VALID[name]).source is None]
    nowhere = [name for name in VALID if told(VALID[name]).destination is None]
    kinds = ("UNKNOWN", "LOCAL", "UNSPEC", "INET of an", "UNIX")
    assert without == nowhere == [name for name in VALID if name.startswith(kinds)]


def test_line() -> None:
    """P3: addresses and ports of both families, addresses as `ipaddress` writes them."""
    assert told(LINE) == TOLD
    assert told(formatV1(*SIX)) == ProxyHeader(version=1, source=SIX[0], destination=SIX[1])
    found = told(VALID["TCP6 in all digits"])
    assert (found.source, found.destination) == (
        ("::1", 0),
        (str(ip_address("::ffff:c000:201")), 0),
    )
    assert told(formatV1(("ABCD::", 1), ("::", 2))).source == ("abcd::", 1)


#: Lines, and how many bytes it takes to refuse them.
REFUSED_EARLY = dict(
    [
        # As soon as one byte is wrong.
        *((b"GET / HTTP/1.1\r\n\r\n", 1), (b"\x16\x03\x01", 1), (b"PROXX", 5), (b"PROXYX", 6)),
        *((b"PROXY\r\n", 6), (b"proxy TCP4", 1), (b"PROXY  TCP4", 7), (b"PROXY tcp4", 7)),
        *((b"PROXY TCP5 ", 10), (b"PROXY TCP4\r\n", 11), (b"PROXY UDP4", 8), (b"PROXY \r\n", 7)),
        *((b"PROXY UNKNOWN\n", 14), (b"PROXY UNKNOWNS", 14), (b"PROXY UNKNOWN\r\r\n", 15)),
        *((b"PROXY UNKNOWN \n", 15), (b"PROXY UNKNOWN \r \r\n", 16), (b"PROXY UNKNOWN\r ", 15)),
        # Nor more than 107 bytes, nor another end than CRLF.
        (b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n", 106),
        (b"PROXY UNKNOWN " + b"x" * 91 + b"\rx", 107),
        (b"PROXY UNKNOWN " + b"x" * 60_000 + b"\r\n", 106),
        (b"PROXY TCP4 " + b"1" * 60_000, 106),
        (LINE[:-2] + b"\n", len(LINE) - 1),
        (LINE[:-1] + b"\r\n", len(LINE)),
        (LINE[:-2] + b" \r\n", len(LINE) + 1),
        # What can be no address is seen at once, what is none at the end of the line.
        (b"PROXY TCP4 ::1 ::1 1 1\r\n", 12),
        (b"PROXY TCP4 evil\x1b[31mhost 192.0.2.2 1 1\r\n", 12),
        (b"PROXY TCP4 \xff\xfe 192.0.2.2 1 1\r\n", 12),
        (b"PROXY TCP6 fe80::1%eth0 ::1 1 1\r\n", 19),
        (b"PROXY TCP6 ::1/64 ::1 1 1\r\n", 15),
        (b"PROXY TCP4 \xd9\xa1.2.3.4 192.0.2.2 1 1\r\n", 12),
    ]
)


def test_refusedEarly() -> None:
    """P3: as early as it is certain, and at once if all of it comes at once."""
    assert {line: earliest(line) for line in REFUSED_EARLY} == REFUSED_EARLY
    for line in REFUSED_EARLY:
        with pytest.raises(MalformedHeader):
            parseHeader(line)


#: What stands in lines that are refused with their last byte.
REFUSED_LATE = [
    # Not of the family that is named, or no address at all.
    *("TCP4 192.0.2 192.0.2.2 1 1", "TCP4 192.0.2.256 192.0.2.2 1 1"),
    *("TCP4 192.0.2.01 192.0.2.2 1 1", "TCP4 3221225985 192.0.2.2 1 1", "TCP4 . . 1 1"),
    *("TCP4 192.0.2.1. 192.0.2.2 1 1", "TCP4  192.0.2.2 1 1", "TCP4 192.0.2.1  1 1"),
    *("TCP6 192.0.2.1 192.0.2.2 1 1", "TCP6 ::1 192.0.2.2 1 1", "TCP6 ::1 1:2 1 1"),
    *("TCP6 ::1::2 ::1 1 1", "TCP6 00001::1 ::1 1 1", "TCP6 1:2:3:4:5:6:7:8:9 :: 1 1"),
    # Too few words, too many, more than one space.
    *("TCP4 192.0.2.1 192.0.2.2 1", "TCP4 192.0.2.1 192.0.2.2 1 1 1", "TCP4 ", "TCP6 "),
    *("TCP4 192.0.2.1  192.0.2.2 1 1", "TCP4 192.0.2.1 192.0.2.2 1  1"),
    *("TCP4 192.0.2.1 192.0.2.2 1 1 ", "TCP4  192.0.2.1 192.0.2.2 1 1"),
]


def test_refusedLines() -> None:
    """P3: what is wrong between the signature and the CRLF."""
    lines = [f"PROXY {words}\r\n".encode() for words in REFUSED_LATE]
    assert {line: earliest(line) for line in lines} == {line: len(line) for line in lines}


def test_refusedPorts() -> None:
    """Ports are decimal digits of 0 to 65535, without zeros before."""
    wrong = ["", "65536", "99999", "100000", "01", "00", "+1", "-1", "1.0", "1_0", "0x1", "abc"]
    for port in wrong:
        for ports in ((port, "1"), ("1", port)):
            line = f"PROXY TCP6 ::1 ::1 {' '.join(ports)}\r\n".encode()
            assert earliest(line) <= len(line)


def test_binary() -> None:
    """P4: addresses and ports of both families."""
    assert told(BINARY) == ProxyHeader(version=2, source=FOUR[0], destination=FOUR[1])
    mapped = formatV2(("::ffff:192.0.2.1", 1), ("::", 0))
    found = told(mapped)
    assert found.source == (str(ip_address("::ffff:c000:201")), 1)
    assert found.destination == ("::", 0)


#: Headers of version 2, and how many bytes it takes to refuse them.
REFUSED_BINARY = dict(
    [
        *((SIGNATURE[:count] + b"X", count + 1) for count in range(1, 12)),
        # Other versions, commands, families and transports.
        *((SIGNATURE + bytes([byte]), 13) for byte in (0x00, 0x01, 0x11, 0x22, 0x2F, 0x31, 0xFF)),
        *((formatV2(*FOUR, family=family), 14) for family in range(4, 16)),
        *((formatV2(*FOUR, transport=transport), 14) for transport in range(3, 16)),
        (formatV2(family=7, transport=UNSPEC), 14),
        # Addresses that are longer than the header; payload is not taken for them.
        *((formatV2(family=INET, addresses=bytes(size)), 16) for size in (0, 1, 11)),
        *((formatV2(family=INET6, addresses=bytes(size)), 16) for size in (12, 35)),
        *((formatV2(family=UNIX, addresses=bytes(size)), 16) for size in (12, 215)),
        (formatV2(*FOUR, length=11) + b"payload", 16),
        (formatV2(*FOUR, transport=UNSPEC, length=11), 16),
        # Longer than anybody needs.
        (formatV2(*FOUR, length=LONGEST - 15), 16),
        (formatV2(*FOUR, length=65535), 16),
        (formatV2(command=LOCAL, length=65535), 16),
    ]
)


def test_refusedBinary() -> None:
    """P4: as early as it is certain."""
    assert {header: earliest(header) for header in REFUSED_BINARY} == REFUSED_BINARY
    for header in REFUSED_BINARY:
        with pytest.raises(MalformedHeader):
            parseHeader(header + bytes(5000))


def test_transports() -> None:
    """No UDP on a stream; by UDP a proxy hands on TCP too; LOCAL has no kind."""
    datagram = formatV2(*FOUR, transport=DGRAM)
    assert earliest(datagram) == 14
    assert not told(BINARY, datagram=True).datagram
    assert told(datagram, datagram=True).datagram
    assert not told(BINARY).datagram
    assert told(
        formatV2(family=UNIX, transport=DGRAM, addresses=bytes(216)), datagram=True
    ).datagram
    for transport in range(16):
        local = formatV2(*FOUR, command=LOCAL, transport=transport)
        assert told(local) == told(local, datagram=True) == ProxyHeader(version=2)
    for header in (formatV2(), formatV2(*FOUR, transport=UNSPEC)):
        assert told(header, datagram=True) == ProxyHeader(version=2)


def test_datagrams() -> None:
    """One datagram has all of its header, of version 2."""
    header = formatV2(*FOUR, [formatTLV(AUTHORITY, b"a")], transport=DGRAM, checksum=0)
    found, length = parseDatagram(header + b"payload")
    assert length == len(header)
    assert (found.source, found.destination, found.authority) == (*FOUR, "a")
    for count in range(len(header)):
        with pytest.raises(MalformedHeader):
            parseDatagram(header[:count])
    for line in (LINE, b"PROXY UNKNOWN\r\n", b"P"):
        with pytest.raises(MalformedHeader):
            parseDatagram(line)


def test_values() -> None:
    """P4: what a header tells besides the addresses; what is not known is skipped."""
    name, unknown = formatTLV(AUTHORITY, "bücher.example".encode()), formatTLV(0xEA, b"\1vpce-0")
    unique, alpn = formatTLV(UNIQUE_ID, b"\0" * 128), formatTLV(ALPN, b"http/1.1")
    parts = [unknown, alpn, formatTLV(NOOP, b"\xff"), name, formatTLV(NOOP, b""), unique]
    for order in itertools.permutations(parts):
        found = told(formatV2(*SIX, order, checksum=len(order) // 2), b"\2\0")
        assert (found.source, found.destination) == SIX
        assert (found.authority, found.alpn) == ("bücher.example", "http/1.1")
        assert (found.uniqueId, found.tls) == (b"\0" * 128, None)
    empty = told(formatV2(*FOUR, [formatTLV(kind, b"") for kind in (ALPN, AUTHORITY, UNIQUE_ID)]))
    assert (empty.alpn, empty.authority, empty.uniqueId) == ("", "", b"")
    two = [formatTLV(AUTHORITY, b"first"), formatTLV(AUTHORITY, b"second")]
    assert told(formatV2(*FOUR, two)).authority == "first"
    # Of an unknown client, too; after a path; but nothing of LOCAL's.
    assert told(formatV2(None, None, parts)).alpn == "http/1.1"
    assert told(formatV2(None, None, parts, family=UNIX, addresses=bytes(216))).alpn == "http/1.1"
    assert told(formatV2(None, None, parts, command=LOCAL)) == ProxyHeader(version=2)


REFUSED_VALUES = [
    *(bytes([AUTHORITY]), bytes([AUTHORITY, 0]), formatTLV(AUTHORITY, b"host")[:-1]),
    *(formatTLV(NOOP, b"") + b"\0", formatTLV(0xEA, bytes(300))[:200], b"\xff\xff\xff"),
    *(formatTLV(AUTHORITY, value) for value in (b"\xff", b"a\0b", b"\x1b[31m", b"a\nb")),
    *(formatTLV(ALPN, value) for value in (b"\xc3", b"\x02h2", "\u202e".encode())),
    formatTLV(UNIQUE_ID, bytes(129)),
    *(formatTLV(CRC32C, bytes(size)) for size in (0, 3, 5)),
]


def test_refusedValues() -> None:
    """P4: TLVs beyond the end, text that is none or would play with a terminal."""
    for values in REFUSED_VALUES:
        header = formatV2(*FOUR, [values])
        assert earliest(header) == len(header)
        with pytest.raises(MalformedHeader):
            parseHeader(header + bytes(500))


#: What may stand after a header of LOCAL or UNSPEC and is no TLV, or a right one.
SKIPPED = [b"\2", b"\xff\xff\xff", FOUR[0][0].encode(), formatTLV(CRC32C, b"abc"), bytes(200)]


def test_skipped() -> None:
    """P4: of LOCAL all is skipped, as the length says; of no known family what cannot be read."""
    kinds = ((UNSPEC, UNSPEC), (INET, 1), (9, 9))
    for skipped, (family, transport) in itertools.product(SKIPPED, kinds):
        local = formatV2(
            command=LOCAL, family=family, transport=transport, addresses=b"", tlvs=[skipped]
        )
        assert told(local, b"payload") == ProxyHeader(version=2)
    for skipped in SKIPPED:
        assert told(formatV2(None, None, [skipped]), b"payload") == ProxyHeader(version=2)


TLS_VALUES = [
    formatTLV(0x21, b"TLSv1.3"),
    formatTLV(0x22, "Jürgen".encode()),
    formatTLV(0x23, b"TLS_AES_128_GCM_SHA256"),
    formatTLV(0x24, b"RSA-SHA256"),
    formatTLV(0x25, b"RSA2048"),
    formatTLV(0x28, bytes(30)),
]


#: The flags and the result that are sent, and whether a certificate was presented and verified.
CERTIFICATES = [
    *((0x01, 0, False, False), (0x01, 1, False, False), (0x07, 0, True, True)),
    *((0x03, 0, True, True), (0x05, 0, True, True), (0x03, 18, True, False)),
    (0xFF, 1 << 31, True, False),
]


def test_tls() -> None:
    """A client is verified if it showed a certificate and the result is 0; 0 alone is not it."""
    for flags, verify, presented, verified in CERTIFICATES:
        found = told(formatV2(*FOUR, [formatTLS(flags, verify, *TLS_VALUES)]))
        assert found.tls == ProxyTLS(
            version="TLSv1.3",
            cipher="TLS_AES_128_GCM_SHA256",
            commonName="Jürgen",
            signatureAlgorithm="RSA-SHA256",
            keyAlgorithm="RSA2048",
            presented=presented,
            verified=verified,
        )


def test_noTLS() -> None:
    """Without the flag of TLS itself there was none; without TLVs little is known of it."""
    assert told(formatV2(*FOUR, [formatTLS(0x06, 0, *TLS_VALUES)])).tls is None
    bare = told(formatV2(*FOUR, [formatTLS(0x01, 0)])).tls
    assert bare == ProxyTLS(presented=False, verified=False)
    # What stands beside the TLV is not in it.
    beside = told(formatV2(*FOUR, [formatTLS(0x01, 0), TLS_VALUES[0]])).tls
    assert beside == bare


REFUSED_TLS = [
    *(formatTLV(0x20, bytes(size)) for size in range(5)),
    *(formatTLS(1, 0, TLS_VALUES[0][:size]) for size in (1, 2, 5, 9)),
    *(formatTLS(1, 0, formatTLV(kind, b"\x1b")) for kind in range(0x21, 0x26)),
    *(formatTLS(1, 0, formatTLV(kind, b"\xff")) for kind in range(0x21, 0x26)),
]


def test_refusedTLS() -> None:
    """P4: TLVs within a TLV end with it, whatever follows."""
    for value, rest in itertools.product(REFUSED_TLS, ([], [formatTLV(NOOP, bytes(20))])):
        header = formatV2(*FOUR, [value, *rest])
        assert earliest(header) == len(header)


def test_checksum() -> None:
    """P4: it is verified where there is one, wherever it stands, over every byte."""
    values = [formatTLV(0xEA, b"\x03\0\4abcd"), formatTLV(UNIQUE_ID, b"id")]
    for command, checksum in itertools.product((LOCAL, PROXY), range(3)):
        header = formatV2(*FOUR, values, command=command, checksum=checksum)
        told(header, b"payload")
        at = 28 + sum(map(len, values[:checksum])) + 3
        for byte in (*range(16, 28), *range(at, at + 4), len(header) - 1):
            changed = bytearray(header)
            changed[byte] ^= 0x10
            with pytest.raises(MalformedHeader, match="CRC32C"):
                parseHeader(bytes(changed))


#: Of HAProxy 2.6.12: options crc32c, unique-id, authority, ssl, cert-cn, ssl-cipher, cert-sig and
#: cert-key, first without and then with a client's certificate; a client at a UNIX socket; a check.
HAPROXY = [
    (
        "0d0a0d0a000d0a515549540a211100827f0000017f000001ce346d63030004bb2e4bee010002683202000c6563686f"
        "2e6578616d706c6505001637463030303030313a434533345f364230323033363220003f0100000000210007544c53"
        "76312e332500075253413230343824000a5253412d534841323536230016544c535f4145535f3235365f47434d5f53"
        "4841333834"
    ),
    (
        "0d0a0d0a000d0a515549540a211100937f0000017f000001ce3e6d6303000453af26a5010002683202000c6563686f"
        "2e6578616d706c6505001637463030303030313a434533455f36423032303336322000500700000000210007544c53"
        "76312e3322000e636c69656e742e6578616d706c652500075253413230343824000a5253412d534841323536230016"
        "544c535f4145535f3235365f47434d5f534841333834"
    ),
    "0d0a0d0a000d0a515549540a2000000a030004826374b8050000",
    "0d0a0d0a000d0a515549540a20000007030004a9b87e8f",
]
#: Of dnsdist 1.7.3, before a DNS query in a datagram.
DNSDIST = "0d0a0d0a000d0a515549540a2112000c7f0000017f00000187d26e29"


def test_realHeaders() -> None:
    """What proxies send, not what we make."""
    without, certified, path, check = (told(bytes.fromhex(text)) for text in HAPROXY)
    assert without == ProxyHeader(
        version=2,
        source=("127.0.0.1", 52788),
        destination=("127.0.0.1", 28003),
        authority="echo.example",
        alpn="h2",
        uniqueId=b"7F000001:CE34_6B020362",
        tls=ProxyTLS(
            version="TLSv1.3",
            cipher="TLS_AES_256_GCM_SHA384",
            signatureAlgorithm="RSA-SHA256",
            keyAlgorithm="RSA2048",
        ),
    )
    assert certified.tls is not None
    assert (certified.tls.commonName, certified.tls.presented, certified.tls.verified) == (
        *("client.example", True, True),
    )
    assert path == check == ProxyHeader(version=2)
    datagram = told(bytes.fromhex(DNSDIST), datagram=True)
    assert (datagram.source, datagram.datagram) == (("127.0.0.1", 34770), True)


addresses = st.one_of(
    st.tuples(st.ip_addresses(v=4), st.ip_addresses(v=4)),
    st.tuples(st.ip_addresses(v=6), st.ip_addresses(v=6)),
)
ports = st.integers(0, 65535)
printable = st.text().filter(str.isprintable)


@given(pair=addresses, sourcePort=ports, destinationPort=ports, payload=st.binary(max_size=40))
def test_roundTripOfLines(
    pair: tuple[object, object], sourcePort: int, destinationPort: int, payload: bytes
) -> None:
    """P3: whatever a proxy tells is understood."""
    source, destination = (str(pair[0]), sourcePort), (str(pair[1]), destinationPort)
    line = formatV1(source, destination)
    assert told(line, payload) == ProxyHeader(version=1, source=source, destination=destination)


@given(data=st.data())
def test_roundTrip(data: st.DataObject) -> None:
    """P4: the same for version 2, with TLVs in any order among unknown ones."""
    pair, datagram = data.draw(addresses), data.draw(st.booleans())
    source, destination = ((str(address), data.draw(ports)) for address in pair)
    authority, alpn = data.draw(st.none() | printable), data.draw(st.none() | printable)
    uniqueId = data.draw(st.none() | st.binary(max_size=128))
    known = [(AUTHORITY, authority and authority.encode()), (ALPN, alpn and alpn.encode())]
    values = [
        formatTLV(kind, value)
        for kind, value in [*known, (UNIQUE_ID, uniqueId)]
        if value is not None and not isinstance(value, str)
    ]
    authority, alpn = authority or None, alpn or None
    others = st.builds(formatTLV, st.sampled_from([NOOP, 0x30, 0xE0, 0xFF]), st.binary(max_size=50))
    parts = data.draw(st.permutations(values + data.draw(st.lists(others, max_size=4))))
    checksum = data.draw(st.none() | st.integers(0, len(parts)))
    transport = DGRAM if datagram else 1
    header = formatV2(source, destination, parts, transport=transport, checksum=checksum)
    found = told(header, data.draw(st.binary(max_size=40)), datagram=datagram)
    assert found == ProxyHeader(
        version=2,
        source=source,
        destination=destination,
        datagram=datagram,
        authority=authority,
        alpn=alpn,
        uniqueId=uniqueId,
    )
    cut = data.draw(st.integers(0, len(header) - 1))
    assert parseHeader(header[:cut], datagram=datagram) == (None, cut)


def mutated(choose: random.Random, header: bytes) -> bytes:
    """``header`` with a few bytes changed, left out, put in or cut off."""
    data = bytearray(header[:300])
    for _ in range(choose.randrange(4)):
        at = choose.randrange(len(data) + 1)
        way = choose.randrange(4)
        if way == 0 and at < len(data):
            data[at] = choose.choice((choose.randrange(256), 0, 0xFF, data[at] ^ 1 << at % 8))
        elif way == 1:
            del data[at : at + choose.randrange(4)]
        elif way == 2:
            data[at:at] = choose.randbytes(choose.randrange(4))
        else:
            del data[at:]
    return bytes(data)


def test_fuzz() -> None:
    """Whatever comes, a header, the wish for more, or `MalformedHeader`; 10 000 cases."""
    choose = random.Random("proxy")
    known = [*VALID.values(), *(bytes.fromhex(text) for text in (*HAPROXY, DNSDIST))]
    outcomes = {"header": 0, "more": 0, "malformed": 0}
    for number in range(10_000):
        data = mutated(choose, known[number % len(known)])
        if number % 10 == 0:
            start = choose.choice((b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"!\x11"))
            data = start + choose.randbytes(choose.randrange(120))
        datagram = choose.random() < 0.3
        try:
            header, length = parseHeader(data, datagram=datagram)
        except MalformedHeader as error:
            checkMessage(error)
            outcomes["malformed"] += 1
            continue
        if header is None:
            assert length == len(data)
            outcomes["more"] += 1
            continue
        outcomes["header"] += 1
        assert length <= len(data)
        assert parseHeader(data[:length], datagram=datagram) == (header, length)
        assert parseHeader(data[: length - 1], datagram=datagram) == (None, length - 1)
        for address in filter(None, (header.source, header.destination)):
            assert str(ip_address(address[0])) == address[0]
            assert 0 <= address[1] <= 65535
        tls = header.tls or ProxyTLS()
        for text in (header.authority, header.alpn, tls.commonName, tls.cipher, tls.version):
            assert text is None or text.isprintable()
    # A fuzz that only ever sees one of them tests nothing.
    assert min(outcomes.values()) > 500, outcomes


def fastest(data: bytes, times: int) -> float:
    """Seconds of the quickest of some runs of ``times`` calls."""
    found = []
    for _ in range(5):
        began = time.thread_time()
        for _ in range(times):
            parseHeader(data)
        found.append(time.thread_time() - began)
    return min(found)


def test_constantWhileIncomplete() -> None:
    """A header byte by byte is linear: each look costs the same, whatever has come already."""
    header = VALID["the longest"]
    assert fastest(header[: LONGEST - 1], 2000) < 5 * fastest(header[:20], 2000)
    # Payload behind a header is not looked at, and not copied.
    assert fastest(LINE + bytes(1 << 20), 200) < 5 * fastest(LINE, 200)
    assert fastest(BINARY + bytes(1 << 20), 200) < 5 * fastest(BINARY, 200)


def test_linearInLength() -> None:
    """The longest header, all of it TLVs, costs what it is longer."""
    small, large = (
        formatV2(*FOUR, [formatTLV(NOOP, b"")] * count, checksum=0) for count in (130, 1300)
    )
    assert len(large) < LONGEST
    assert fastest(large, 5) < 30 * fastest(small, 5)


def test_messages() -> None:
    """O5: what is shown of a peer's bytes is cut and escaped."""
    for data in (b"\x1b[31m" * 100, b"PROXY TCP4 " + b"\x07" * 90, b"\r\n\x9b"):
        with pytest.raises(MalformedHeader) as caught:
            parseHeader(data)
        checkMessage(caught.value)
    assert r"\x9b" in str(caught.value)


def test_longestLine() -> None:
    """P3: 107 bytes are no more than any line needs."""
    assert len(VALID["UNKNOWN, 107 bytes"]) == LONGEST_LINE
    assert len(VALID["the longest TCP6"]) == 104
    assert len(VALID["the longest"]) == LONGEST
