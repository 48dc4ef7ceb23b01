"""After some hundreds of connections of all kinds, all that tells of them tells the same."""

from __future__ import annotations

import contextlib
import random
import socket
from collections import Counter
from pathlib import Path
from typing import Any

from echod.insight.refusals import KEPT
from echod.server.counters import NEVER_OPEN
from tests.certificates import Certificates
from tests.integration.asking import ask
from tests.integration.daemon import PATIENCE, Daemon, waitFor
from tests.integration.loaded import LoadedDaemon
from tests.integration.peers import HARM, assertUnharmed, configured, frame
from tests.integration.test_ends import DENIED, LOCAL, Client, Place, placesOf
from tests.unit.admin.reading import Samples, parser, total
from tests.unit.proxyheaders import CLIENT

#: Each protocol on another way: the way, a message, and bytes that are none.
SERVED = {
    "raw": ("tcp", b"hello", b""),
    "line": ("unix", b"hello\n", b"x" * 200),
    "dns": ("tls", frame(b"hello"), b""),
    "upper": ("proxied", b"HELLO\n", b""),
    "netstring": ("proxied_unix", b"5:hello,", b"hello"),
}
#: Connections; those that are denied besides.
LOAD, STRANGERS = 300, KEPT + 10
#: What is summed, by its name in metrics.
SUMS = {
    "bytes_in": "received_bytes",
    "bytes_out": "sent_bytes",
    "discarded": "discarded_bytes",
    "messages": "messages",
    "truncated": "messages_truncated",
    "pauses": "pauses",
}


def play(protocol: str, place: Place, certificates: Certificates, chance: random.Random) -> None:
    """One client, of some kind."""
    way, message, wrong = SERVED[protocol]
    kinds = ["finish", "reset", "truncate", "silent", "leave", "half"]
    kinds += ["wrong"] if wrong else []
    kinds += ["denied", "bare"] if way.startswith("proxied") else []
    kind = chance.choice(kinds)
    source = {"denied": DENIED, "bare": None}.get(kind, CLIENT)
    client = Client(way, place.address, certificates, source)
    with contextlib.closing(client):
        if kind == "bare":
            client.sendBare(b"GET / HTTP/1.1\r\n\r\n")
        if kind in ("silent", "denied", "bare"):
            return
        client.begin()
        for _ in range(chance.randrange(1, 4)):
            client.ping(message)
        if kind == "half":
            client.send(message[:1])
        if kind == "wrong":
            client.send(wrong)
            client.untilEnd()
        if kind in ("finish", "half", "wrong"):
            client.finish()
            client.untilEnd()
        elif kind == "truncate":
            client.truncate()
            client.untilEnd()
        elif kind == "reset":
            client.reset(message)


def refuse(address: Any) -> None:
    """One that may not come."""
    with (
        contextlib.suppress(ConnectionResetError),
        socket.create_connection(address, PATIENCE, ("127.0.0.2", 0)) as client,
    ):
        assert client.recv(1) == b""


def settled(admin: Path) -> dict[str, Any]:
    """`/counters` by protocol, once nobody but the one that asks is there."""

    def found() -> dict[str, Any]:
        listeners = ask(admin, "/counters")["listeners"]
        rows = {each["listener"].split()[0]: each for each in listeners}
        del rows["admin"]
        return {} if any(each["open"] for each in rows.values()) else rows

    return dict(waitFor(found, "the end of all connections"))


def bySIGUSR1(daemon: Daemon) -> dict[str, Any]:
    return {each["listener"].split()[0]: each for each in daemon.allCounters()["listeners"]}


def metrics(admin: Path) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parser.text_string_to_metric_families(ask(admin, "/metrics"))
        for sample in family.samples
    }


def test_allAgree(tmp_path: Path, certificates: Certificates) -> None:
    """`/counters`, SIGUSR1, `/metrics`, `/closed` and `/refused`; and sums are what they must."""
    admin, chance = tmp_path / "admin", random.Random(14)
    tables: list[dict[str, Any]] = [
        {
            "protocol": protocol,
            "endpoint": f"unix:{tmp_path}/{protocol}" if "unix" in way else "tcp:0",
            **({"tls": {"cert": certificates.server}} if way.endswith("tls") else {}),
            **({"proxy": LOCAL, "deny": ["10.0.0.0/8"]} if way.startswith("proxied") else {}),
            **({"deny": ["127.0.0.2/32"]} if protocol == "raw" else {}),
            **({"options": {"max_length": 100}} if protocol == "line" else {}),
        }
        for protocol, (way, _, _) in SERVED.items()
    ]
    tables.append({"protocol": "admin", "endpoint": f"unix:{admin}"})
    with LoadedDaemon(configured(tmp_path, *tables)) as daemon:
        places = placesOf(admin, [*SERVED])
        for number in range(LOAD):
            protocol = [*SERVED][number % len(SERVED)]
            play(protocol, places[protocol], certificates, chance)
        for _ in range(STRANGERS):
            refuse(places["raw"].address)
        counters = settled(admin)
        asked = bySIGUSR1(daemon)
        told = metrics(admin)
        closed = ask(admin, "/closed?limit=10000")
        refused = ask(admin, "/refused?limit=10000")
        assertUnharmed(daemon, HARM)
    assert not closed["more"]
    assert sum(each["accepted"] for each in counters.values()) == LOAD
    assert counters["raw"]["refused"] == {"denied": STRANGERS}
    for protocol, each in counters.items():
        assert asked[protocol] == each
        checkSums(each)
        rows = [row for row in closed["connections"] if row["protocol"] == protocol]
        checkRows(rows, each)
        checkMetrics(told, protocol, each)
        kept = [row for row in refused["refused"] if row["listener"] == each["listener"]]
        checkRefusals(kept, each)
    raw = counters["raw"]
    assert raw["bytes_in"] == raw["bytes_out"]


def checkSums(counters: dict[str, Any]) -> None:
    """What they have among each other."""
    ends = counters["ends"]
    assert counters["accepted"] == sum(counters["closed"].values())
    assert {why: sum(of.values()) for why, of in ends.items()} == counters["closed"]
    assert counters["aborted"] == sum(of.get("abort", 0) for of in ends.values())
    assert counters["resets"] == sum(of.get("rst", 0) for of in ends.values())
    assert counters["bytes_out"] <= counters["bytes_in"]


def checkRows(rows: list[dict[str, Any]], counters: dict[str, Any]) -> None:
    """The shelf's, of which none has been forgotten."""
    assert Counter((row["reason"], row["end"]) for row in rows) == {
        (why, end): count for why, of in counters["ends"].items() for end, count in of.items()
    }
    for key in SUMS:
        assert sum(row[key] for row in rows) == counters[key], key
    assert sum(row["owed"] for row in rows) == counters["cut_bytes"]
    assert len({row["id"] for row in rows}) == len(rows)


def checkMetrics(told: Samples, protocol: str, counters: dict[str, Any]) -> None:
    for key, name in {**SUMS, "accepted": "connections_accepted", "cut_bytes": "cut_bytes"}.items():
        assert total(told, f"echod_{name}_total", protocol=protocol) == counters[key], key
    for reason, of in counters["ends"].items():
        for end, count in of.items():
            labels = {"protocol": protocol, "reason": reason, "end": end}
            assert total(told, "echod_connections_closed_total", **labels) == count
    gone = sum(counters["closed"].values())
    assert total(told, "echod_connections_closed_total", protocol=protocol) == gone
    assert total(told, "echod_connections_open", protocol=protocol) == 0
    turned = total(told, "echod_connections_refused_total", protocol=protocol)
    assert turned == sum(counters["refused"].values())


def checkRefusals(rows: list[dict[str, Any]], counters: dict[str, Any]) -> None:
    """Of each reason the last fifty; with those that never came past a header or a handshake."""
    expected = Counter(counters["refused"])
    expected.update({why: n for why, n in counters["closed"].items() if why in NEVER_OPEN})
    assert Counter(row["reason"] for row in rows) == {
        reason: min(KEPT, count) for reason, count in expected.items()
    }
    assert all(row["peer"] for row in rows)
