"""`echod.admin.pages`: what each path gives."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from echod import __version__
from echod.errors import UnknownWord
from echod.testing import PlainContext
from echod.testing.plain_context import PlainInsight
from tests.unit.admin.asking import Server, get

ROW = {"id": "abc-1", "listener": "raw", "age": 1.5}
GONE = {"id": "abc-2", "reason": "eof", "timeline": []}
AWAY = {"peer": "192.0.2.1", "reason": "denied"}


@pytest.fixture
def server() -> Server:
    return Server(
        totals={"listeners": [], "lag_ms": 0.1, "worst_lag_ms": 0.2, "slow": 3},
        insight=PlainInsight(
            live=[ROW],
            ended=[GONE],
            turnedAway=[AWAY],
            listening=[{"listener": "raw tcp 127.0.0.1:1"}],
            served={"drain_timeout": 10.0},
        ),
    )


def test_index(server: Server) -> None:
    """One line for each path."""
    asked = get(server, "/")
    assert asked.code == 200
    assert asked.headers["content-type"] == "text/plain; charset=utf-8"
    paths = [re.split("[? ]", line)[0] for line in asked.body.decode().splitlines()]
    for path in paths:
        assert get(server, path.replace("ID", "abc-1"), method="HEAD").code == 200


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (
            "/connections",
            {
                "format": "echod-connections/1",
                "consistent": True,
                "connections": [ROW],
                "more": False,
            },
        ),
        ("/connections/abc-1", {"format": "echod-connection/1", **ROW}),
        ("/connections/abc-2", {"format": "echod-connection/1", **GONE}),
        (
            "/closed",
            {"format": "echod-closed/1", "consistent": True, "connections": [GONE], "more": False},
        ),
        (
            "/refused",
            {"format": "echod-refused/1", "consistent": True, "refused": [AWAY], "more": False},
        ),
        (
            "/listeners",
            {"format": "echod-listeners/1", "listeners": [{"listener": "raw tcp 127.0.0.1:1"}]},
        ),
        ("/config", {"format": "echod-config/1", "drain_timeout": 10.0}),
    ],
)
def test_documents(server: Server, path: str, expected: dict[str, Any]) -> None:
    """Each has its format, and begins with it."""
    asked = get(server, path)
    assert asked.code == 200
    assert asked.json == expected
    assert asked.body.startswith(b'{"format":"')


def test_counters(server: Server) -> None:
    """All of them; and how long the server has been there, whenever this listener came."""
    server.uptime = 1000.5
    found = get(server, "/counters").json
    assert found["format"] == "echod-counters/1"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", found["time"])
    assert found["uptime"] == 1000.5
    assert found["pid"] == os.getpid()
    assert found["version"] == __version__
    assert found["slow"] == 3


@pytest.mark.parametrize(
    ("draining", "code", "word"), [(False, 200, "ready"), (True, 503, "draining")]
)
def test_health(draining: bool, code: int, word: str) -> None:
    asked = get(Server(draining=draining), "/health")
    assert (asked.code, asked.line) == (code, word)


class _Asked(PlainInsight):
    """Notes what it is asked, and knows no word ``bad``."""

    words: dict[str, str]

    def connections(self, **words: str) -> Iterator[dict[str, Any]]:
        self.words = words
        return self.closed("bad" if "bad" in words.values() else "")

    def closed(self, reason: str = "") -> Iterator[dict[str, Any]]:
        if reason == "bad":
            raise UnknownWord("no 'bad'\x1b; there are: good")
        return iter(())

    refused = closed


def test_words() -> None:
    """What is asked for reaches the one who knows, percent-decoded."""
    insight = _Asked()
    get(
        Server(insight=insight),
        "/connections?listener=raw+tcp&state=open&source=2001%3Adb8%3A%3A%2F32&sort=idle&limit=7",
    )
    assert insight.words == {
        "listener": "raw tcp",
        "state": "open",
        "source": "2001:db8::/32",
        "sort": "idle",
    }


@pytest.mark.parametrize(
    "target",
    [
        "/connections?sort=bad",
        "/connections?state=bad",
        "/closed?reason=bad",
        "/refused?reason=bad",
    ],
)
def test_unknownWords(target: str) -> None:
    """One line of what there is, without what a terminal would obey."""
    for method in ("GET", "HEAD"):
        assert get(Server(insight=_Asked()), target, method=method).code == 400
    assert get(Server(insight=_Asked()), target).line == r"no 'bad'\x1b; there are: good"


@pytest.mark.parametrize("limit", ["0", "10001", "-1", "", "1e3", "x", "%C2%B2", "9" * 5000, "%20"])
@pytest.mark.parametrize("path", ["/connections", "/closed", "/refused"])
def test_badLimits(server: Server, path: str, limit: str) -> None:
    asked = get(server, f"{path}?limit={limit}")
    assert asked.code == 400
    assert asked.line.endswith("write a number from 1 to 10000")


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("/connections?x=1", "there are: listener, state, source, sort, limit"),
        ("/connections?sort", "there are: listener, state, source, sort, limit"),
        ("/connections?limit=1&limit=1", "limit is given twice"),
        ("/connections?sort=%FF", "sort is not UTF-8"),
        ("/closed?state=open", "there are: reason, limit"),
        ("/health?a=b", "there is none"),
        ("/events?a=b", "there is none"),
        ("/connections/abc-1?a=b", "there is none"),
    ],
)
def test_badQueries(server: Server, target: str, told: str) -> None:
    asked = get(server, target)
    assert asked.code == 400
    assert told in asked.line


@pytest.mark.parametrize(
    "target",
    [
        *("/x", "//", "//connections", "/connections/", "/../connections", "/a/../connections"),
        *("/%2e%2e/connections", "/connections%2f", "/Connections", "/connections;x", "/x?a=b"),
        *("/connections/../counters", "/connections//", "*", "connections", "/counters/"),
        "/%63ounters",
    ],
)
def test_unknownPaths(server: Server, target: str) -> None:
    """A path is what it is: nothing is decoded or made shorter."""
    asked = get(server, target)
    assert asked.code == 404
    assert "/connections" in asked.line


def test_absoluteTarget(server: Server) -> None:
    """RFC 9112 section 3.2.2: its host is the one that counts."""
    assert get(server, "http://localhost:99/health").code == 200
    assert get(server, "HTTP://127.0.0.1?a=b").code == 400
    assert get(server, "http://evil.example/health").code == 421


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/html", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text;version=1.0.0", "application/openmetrics-text"),
    ],
)
def test_metrics(accept: str, kind: str) -> None:
    """In the format that is asked for."""
    asked = get(Server(), "/metrics", *([f"Accept: {accept}"] if accept else []))
    assert asked.code == 200
    assert asked.headers["content-type"].startswith(kind)
    assert b"echod_build_info" in asked.body
    assert get(Server(), "/metrics?a=b").code == 400


def test_metricsWithoutTheLibrary(monkeypatch: pytest.MonkeyPatch) -> None:
    """501, and what to install."""
    monkeypatch.delitem(sys.modules, "echod.admin.prometheus", raising=False)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    asked = get(Server(), "/metrics")
    assert asked.code == 501
    assert "pip install 'twisted-echod[metrics]'" in asked.line


def rows(count: int) -> Iterator[dict[str, Any]]:
    return ({"id": f"x-{number:x}"} for number in range(count))


@pytest.mark.parametrize(
    ("there", "asked", "given"),
    [(5, "?limit=5", 5), (6, "?limit=5", 5), (1001, "", 1000), (11_000, "?limit=10000", 10_000)],
)
def test_limit(there: int, asked: str, given: int) -> None:
    server = Server(insight=PlainInsight(live=list(rows(there))))
    found = get(server, f"/connections{asked}").json
    assert len(found["connections"]) == given
    assert found["more"] == (there > given)


def test_twoServers() -> None:
    """Each is told of by its own listeners."""
    first, second = Server(draining=True), Server()
    assert get(first, "/health").code == 503
    assert get(second, "/health").code == 200
    assert isinstance(first, PlainContext)
