"""`echod.admin.safe_json`: what peers write harms neither a terminal nor a page."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from echod.admin.safe_json import safeJSON
from echod.testing.plain_context import PlainInsight
from tests.unit.admin.asking import Server, get


@given(st.text())
def test_anyText(text: str) -> None:
    """Printable ASCII without ``<``, and the same when it is read."""
    data = safeJSON({"key": [text], text: 1})
    assert data.isascii()
    assert data.decode().isprintable()
    assert b"<" not in data
    assert msgspec.json.decode(data) == {"key": [text], text: 1}


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("<script>", rb"\u003cscript>"),
        ("\x1b[31m", rb"\u001b[31m"),
        ("\x7f\x9b", rb"\u007f\u009b"),
        ("a\u202eb", rb"a\u202eb"),
        ("\U0001f600", rb"\ud83d\ude00"),
        ("\ud800", rb"\ud800"),
        ('"\\', rb"\"\\"),
    ],
)
def test_written(text: str, written: bytes) -> None:
    assert safeJSON({"a": text}) == b'{"a":"' + written + b'"}'


@pytest.mark.parametrize(
    "name", ["<script>alert(1)</script>", "\x1b]0;x\x07", "\u202egpj.exe", "\xe9"]
)
def test_namesOfPeers(name: str) -> None:
    """In every list and document."""
    row = {"id": "a-1", "tls": {"sni": name, "subject": name}, "proxied": {"authority": name}}
    insight = PlainInsight(
        live=[row], ended=[row], turnedAway=[row], listening=[row], served={"x": name}
    )
    server = Server(insight=insight)
    for path in (
        "/connections",
        "/connections/a-1",
        "/closed",
        "/refused",
        "/listeners",
        "/config",
    ):
        asked = get(server, path)
        assert name in repr(asked.json) or asked.json
        assert asked.body.decode("ascii")[:-1].isprintable()
        assert b"<" not in asked.body
