"""What docs/writing-a-protocol.md shows: examples that run as they stand there."""

from __future__ import annotations

import socket
import tomllib
from pathlib import Path
from typing import Any

import pytest

from echod.config.settings import Configuration, parseConfiguration
from echod.server.plan import ListenerRequest, plan
from echod.server.registry import Registry, verify
from echod.server.service import EchodService
from tests.documentation.code_blocks import codeBlocks
from tests.unit.outer import Outer, waitUntil

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "writing-a-protocol.md").read_text()
MAKERS = ("shout", "reverse", "twice", "greet", "stats", "wire", "rot128", "backwards", "hops")


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    """What the page's code defines, each block after those before it."""
    names: dict[str, Any] = {"__name__": "page"}
    for number, block in enumerate(codeBlocks("python", PAGE)):
        exec(compile(block, f"block {number}", "exec", dont_inherit=True), names)
    return names


def test_makers(page: dict[str, Any]) -> None:
    for name in MAKERS:
        verify(page[name], name)


@pytest.mark.parametrize(("name", "answer"), [("backwards", b"cba"), ("hops", b"\x40")])
def test_datagrams(page: dict[str, Any], name: str, answer: bytes) -> None:
    """The datagram protocols of the page, at a real socket."""
    made = plan(
        Configuration(),
        [ListenerRequest(place="here", protocol=name, endpoint="udp:0")],
        Registry([page[name]]),
        4096,
    )
    loop = Outer()
    (listener,) = EchodService(made, loop).listeners
    listener.privilegedStartService()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(20)
        client.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 64)
        client.sendto(b"abc", ("127.0.0.1", listener.getHost().port))
        waitUntil(loop.turn, lambda: listener.counters()["datagrams_out"])
        assert client.recv(10) == answer
    listener.abandon()


ITS_TESTS = ["test_conforms", "test_stats", "test_client"]


@pytest.mark.parametrize("name", ITS_TESTS)
def test_itsTests(page: dict[str, Any], name: str) -> None:
    """The page's own tests pass, and are all there are."""
    page[name]()
    assert [key for key in page if key.startswith("test_")] == ITS_TESTS


def test_itsTOML(page: dict[str, Any]) -> None:
    """The listener can be served; the entry point is of the group that is looked at."""
    listener, project = codeBlocks("toml", PAGE)
    configuration = parseConfiguration(listener)
    assert configuration.listener is not None
    (table,) = configuration.listener
    registry = Registry([page["greet"]])
    maker = registry.get(table["protocol"], "here")
    assert registry.settings(maker, table["options"], "here", strict=True).word == "Salut"
    assert tomllib.loads(project)["project"]["entry-points"] == {
        "echod.protocols": {"shout": "echod_shout:shout"}
    }
