"""What a daemon tells of its connections agrees wherever it is told: metrics, counters, shelf."""

from __future__ import annotations

import json
import socket
import struct
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.certificates import Certificates
from tests.integration.daemon import PATIENCE, Daemon, exchange, waitFor
from tests.integration.loaded import LoadedDaemon
from tests.integration.peers import HARM, assertUnharmed, configured
from tests.unit.admin.reading import OPEN, Samples, openmetrics, parser, total

#: RST at close, as a process that is killed sends.
RST = struct.pack("ii", 1, 0)


def fetched(daemon: Daemon, path: str, accept: str = "*/*") -> str:
    """What a page says."""
    url = f"http://127.0.0.1:{daemon.ports['admin']}{path}"
    request = urllib.request.Request(url, headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=PATIENCE) as reply:
        text: str = reply.read().decode()
    return text


def metrics(daemon: Daemon, accept: str = "text/plain") -> Samples:
    text = fetched(daemon, "/metrics", accept)
    read = openmetrics if text.endswith("# EOF\n") else parser
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in read.text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture
def daemon(tmp_path: Path, certificates: Certificates) -> Any:
    """Listeners of four kinds, and after a mix of ends."""
    listeners: list[dict[str, Any]] = [
        {"protocol": "raw", "endpoint": "tcp:0", "max_bytes": 10},
        {"protocol": "line", "endpoint": "tcp:0", "options": {"max_length": 20}},
        {"protocol": "dns", "endpoint": "tcp:0", "tls": {"cert": certificates.server}},
        {"protocol": "upper", "endpoint": "tcp:0", "deny": ["127.0.0.0/8"]},
        {"protocol": "udp", "endpoint": "udp:0"},
        {"protocol": "admin", "endpoint": "tcp:0"},
    ]
    with LoadedDaemon(configured(tmp_path, *listeners)) as daemon:
        for data in (b"hello", b"world!", b"more than ten bytes"):
            with daemon.connect("raw") as client:
                exchange(client, data)
        with daemon.connect("line") as client:
            client.sendall(b"whole\nhalf")
            client.shutdown(socket.SHUT_WR)
            assert client.makefile("rb").read() == b"whole\n"
        with daemon.connect("line") as client:
            exchange(client, b"x" * 30)
        with daemon.connect("line") as client:
            client.sendall(b"one\n")
            assert client.recv(4) == b"one\n"
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
        with daemon.connect("dns") as client:
            client.sendall(b"no handshake")
            client.recv(100)
        with daemon.connect("upper") as client:
            assert client.recv(1) == b""
        with socket.socket(type=socket.SOCK_DGRAM) as client:
            client.settimeout(PATIENCE)
            port = daemon.waitForLine("listening udp udp 127.0.0.1:").rpartition(":")[2]
            client.connect(("127.0.0.1", int(port)))
            client.send(b"datagram")
            assert client.recv(100) == b"datagram"
        yield daemon
        assertUnharmed(daemon, HARM)


ENDED = {
    *{("raw", "eof", "fin"), ("raw", "max_bytes", "fin")},
    *{("line", "eof", "fin"), ("line", "too_long", "fin"), ("line", "reset", "rst")},
    ("dns", "tls", "fin"),
}


def test_allAgree(daemon: Daemon) -> None:
    """By protocol, reason and end; bytes, messages and refusals too; in both formats."""
    waitFor(lambda: sum(sum(each["closed"].values()) for each in served(daemon)) == 7, "seven ends")
    listeners = {each["listener"].split()[0]: each for each in daemon.allCounters()["listeners"]}
    ends = {
        (protocol, reason, end): count
        for protocol, each in listeners.items()
        if "ends" in each and protocol != "admin"
        for reason, counts in each["ends"].items()
        for end, count in counts.items()
    }
    assert {*ends} == ENDED
    shelf = Counter(
        (each["protocol"], each["reason"], each["end"])
        for each in json.loads(fetched(daemon, "/closed"))["connections"]
        if each["protocol"] != "admin"
    )
    assert shelf == ends
    refused = Counter(
        each["listener"].split()[0] for each in json.loads(fetched(daemon, "/refused"))["refused"]
    )
    for accept in ("text/plain", OPEN):
        found = metrics(daemon, accept)
        told = {
            tuple(dict(labels)[key] for key in ("protocol", "reason", "end")): value
            for (name, labels), value in found.items()
            if name == "echod_connections_closed_total" and value
        }
        assert {key: value for key, value in told.items() if key[0] != "admin"} == ends
        for protocol, each in listeners.items():
            if protocol in ("admin", "udp"):
                continue
            for name, key in {
                "connections_accepted": "accepted",
                "received_bytes": "bytes_in",
                "sent_bytes": "bytes_out",
                "discarded_bytes": "discarded",
                "messages": "messages",
                "messages_truncated": "truncated",
            }.items():
                assert total(found, f"echod_{name}_total", protocol=protocol) == each[key], name
            isOpen = total(found, "echod_connections_open", protocol=protocol)
            gone = total(found, "echod_connections_closed_total", protocol=protocol)
            assert isOpen + gone == each["accepted"]
            turned = total(found, "echod_connections_refused_total", protocol=protocol)
            assert turned == sum(each["refused"].values())
            if protocol == "upper":
                assert turned == refused[protocol] == 1
        assert total(found, "echod_datagrams_sent_total", protocol="udp") == 1
        assert total(found, "echod_held_bytes") == 0
        assert total(found, "process_resident_memory_bytes") > 1 << 20


def served(daemon: Daemon) -> list[dict[str, Any]]:
    """The counters of listeners of connections but the one that is asked, as the page has them."""
    return [
        each
        for each in json.loads(fetched(daemon, "/counters"))["listeners"]
        if "closed" in each and not each["listener"].startswith("admin ")
    ]


def test_heldIsSeen(daemon: Daemon) -> None:
    """Who sends and does not read is held for, within the bound; nothing is once it is gone."""
    with daemon.connect("line") as client:
        client.settimeout(0.5)
        client.sendall(b"an unfinished line")
        waitFor(lambda: total(metrics(daemon), "echod_held_bytes") == 18, "what is held")
    waitFor(lambda: not total(metrics(daemon), "echod_held_bytes"), "nothing is held")
