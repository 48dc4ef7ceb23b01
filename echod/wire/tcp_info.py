"""
What Linux knows of a TCP connection: `parseTCPInfo` reads a ``struct tcp_info``.

The layout is that of ``linux/tcp.h``.  The struct only ever grows at its end, so an older kernel
gives a shorter one: what is not in it is left out, and so is what the kernel does not know.
"""

from __future__ import annotations

import struct
import sys

__all__ = ["STATES", "parseTCPInfo"]

#: The names of ``tcpi_state``, from 1 on (``TCP_ESTABLISHED`` …, ``include/net/tcp_states.h``).
STATES = (
    *("ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT"),
    *("CLOSE", "CLOSE_WAIT", "LAST_ACK", "LISTEN", "CLOSING", "NEW_SYN_RECV"),
)
#: The bits of ``tcpi_options`` (``TCPI_OPT_…``), the lowest first.  The second of ECN: a packet has
#: come that could have been marked.
_OPTIONS = ("timestamps", "sack", "window_scale", "ecn", "ecn_seen", "fast_open")

# State, congestion state, retransmits, probes, backoff, options, window scales, flags.
_BYTES = struct.Struct("=8B")

# The rest, in order: the letter of `struct`, and the name.  Those without a name are not told.
_FIELDS = (
    *(("I", "rto"), ("I", ""), ("I", "snd_mss"), ("I", "rcv_mss")),
    *(("I", "unacked"), ("I", "sacked"), ("I", "lost"), ("I", "retrans"), ("I", "")),
    *(("I", "last_data_sent"), ("I", ""), ("I", "last_data_recv"), ("I", "last_ack_recv")),
    *(("I", "pmtu"), ("I", ""), ("I", "rtt"), ("I", "rttvar"), ("I", "snd_ssthresh")),
    *(("I", "snd_cwnd"), ("I", "advmss"), ("I", "reordering"), ("I", "rcv_rtt")),
    *(("I", "rcv_space"), ("I", "total_retrans"), ("Q", "pacing_rate"), ("Q", "")),
    *(("Q", "bytes_acked"), ("Q", "bytes_received"), ("I", "segs_out"), ("I", "segs_in")),
    *(("I", "notsent_bytes"), ("I", "min_rtt"), ("I", "data_segs_in"), ("I", "data_segs_out")),
    *(("Q", "delivery_rate"), ("Q", "busy_time"), ("Q", "rwnd_limited"), ("Q", "sndbuf_limited")),
    *(("I", "delivered"), ("I", "delivered_ce"), ("Q", "bytes_sent"), ("Q", "bytes_retrans")),
    *(("I", "dsack_dups"), ("I", "reord_seen"), ("I", "rcv_ooopack"), ("I", "snd_wnd")),
)

# Values that mean that there is none: no limit, nothing measured yet.
_NONE = {
    "snd_ssthresh": 0x7FFFFFFF,
    "pacing_rate": 0xFFFFFFFFFFFFFFFF,
    "min_rtt": 0xFFFFFFFF,
    "rcv_rtt": 0,
    "delivery_rate": 0,
}


def _placed() -> list[tuple[int, struct.Struct, str]]:
    # Each lies where the one before it ends: that is aligned in all of them.
    places = []
    offset = _BYTES.size
    for letter, name in _FIELDS:
        field = struct.Struct("=" + letter)
        if name:
            places.append((offset, field, name))
        offset += field.size
    return places


_PLACES = _placed()


def parseTCPInfo(data: bytes) -> dict[str, object]:
    """
    The fields by the kernel's names without ``tcpi_``; docs/insight.md has their units.

    :param data: what ``getsockopt(TCP_INFO)`` gives (tcp(7)), or a part of it.
    """
    if len(data) < _BYTES.size:
        return {}
    state, _, retransmits, probes, backoff, options, scales, _ = _BYTES.unpack_from(data)
    known = 0 < state <= len(STATES)
    info: dict[str, object] = {
        "state": STATES[state - 1] if known else str(state),
        "options": [name for bit, name in enumerate(_OPTIONS) if options >> bit & 1],
    }
    if options & 1 << _OPTIONS.index("window_scale"):
        # Two fields of four bits, which begin at the machine's end.
        first, second = scales & 0xF, scales >> 4
        if sys.byteorder == "big":
            first, second = second, first
        info["snd_wscale"], info["rcv_wscale"] = first, second
    info |= {"retransmits": retransmits, "probes": probes, "backoff": backoff}
    for offset, field, name in _PLACES:
        if offset + field.size > len(data):
            break
        (value,) = field.unpack_from(data, offset)
        if value != _NONE.get(name):
            info[name] = value
    return info
