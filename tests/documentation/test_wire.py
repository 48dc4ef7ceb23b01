"""docs/wire.md: every requirement has a test, every citation has an entry."""

from __future__ import annotations

import pytest

from tests.documentation import citations


def test_requirement_without_a_test() -> None:
    proving = citations.proofs()
    assert [each for each in citations.requirements() if not proving[each]] == []


def test_citation_without_an_entry() -> None:
    known = citations.requirements()
    assert {each: tests for each, tests in citations.proofs().items() if each not in known} == {}
    assert {each: files for each, files in citations.pointers().items() if each not in known} == {}


def test_list_of_tests() -> None:
    """What is written is what is computed."""
    assert citations.writtenList() == citations.computedList(), (
        "docs/wire.md is out of date: run `python -m tests.documentation`"
    )


def test_bare_ids() -> None:
    """An id stands where a reader can tell what it is; docs/wire.md itself is the list."""
    texts = [each for each in citations.texts() if each[0] != "docs/wire.md"]
    assert [bare for each in texts for bare in citations.bareIds(*each)] == []


def test_nothing_elsewhere_is_cited() -> None:
    """No document, issue or list is cited that the repository has not."""
    found = [
        f"{name}:{number}: {line.strip()}"
        for name, text in citations.texts()
        if not name.startswith("tests/documentation/")
        for number, line in enumerate(text.splitlines(), 1)
        if citations.ELSEWHERE.search(line)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('"""E1, C5: all of it."""', []),
        ('"""All of it (E1)."""', ["E1"]),
        ("# See E1.", ["E1"]),
        ("# docs/wire.md E1, C5 say so.", []),
        ("# IPv4, H2, HTTP/2, -O2, ``O2``, UTF-8, E1x and C++17 are none.", []),
        ("flag = 'O2'", []),
    ],
)
def test_what_a_bare_id_is(text: str, found: list[str]) -> None:
    assert [each.rsplit(": ", 1)[1] for each in citations.bareIds("tests/x.py", text)] == found
