"""`echod.errors`: one base, and one line for whatever a person is shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echod.errors import (
    ConfigurationError,
    EchodError,
    FramingError,
    ListenError,
    MalformedHeader,
    MessageTooLong,
    oneLine,
)


@pytest.mark.parametrize(
    "kind", [ConfigurationError, ListenError, FramingError, MalformedHeader, MessageTooLong]
)
def test_oneBase(kind: type[EchodError]) -> None:
    """All that echod raises on purpose can be caught as one."""
    assert issubclass(kind, EchodError)
    assert str(kind("what is wrong")) == "what is wrong"


def test_operatorAndPeerAreToldApart() -> None:
    """What ends the program is not what ends one connection."""
    assert issubclass(MessageTooLong, FramingError)
    assert not issubclass(FramingError, ConfigurationError | ListenError)
    assert not issubclass(MalformedHeader, ConfigurationError | ListenError | FramingError)
    assert MessageTooLong("x").complete == b""
    assert MessageTooLong("x", b"abc").complete == b"abc"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, with `quotes` and ü", "plain, with `quotes` and ü"),
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("\x1b[31m\0\x7f\x85", r"\x1b[31m\x00\x7f\x85"),
        ("a\u2028b\u202e", r"a\u2028b\u202e"),
        ("\udcff", r"\udcff"),
    ],
)
def test_oneLine(text: str, shown: str) -> None:
    """O5: whatever is not printable is shown as its escape, once."""
    assert oneLine(text) == shown
    assert str(EchodError(text)) == shown
    assert str(MessageTooLong(text, b"")) == shown
    assert str(ConfigurationError(f"{ListenError(text)}")) == shown


@given(text=st.text())
def test_oneLineOfAnything(text: str) -> None:
    """O3, O5: one line, printable, and nothing that a terminal's encoding cannot take."""
    shown = str(EchodError(text))
    assert shown.isprintable()
    assert len(shown.splitlines()) == (1 if text else 0)
    assert shown.encode().decode() == shown
