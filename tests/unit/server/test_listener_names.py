"""`echod.server.listener_names`: a name stays with the counters that it was given for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from echod.insight.refusals import Refusals
from echod.server.listener_names import ListenerNames


def listenerAt(endpoint: str, refusals: Refusals | None = None, protocol: str = "raw") -> Any:
    """As much of a listener as is asked for."""
    plan = SimpleNamespace(maker=SimpleNamespace(name=protocol), endpoint=endpoint)
    return SimpleNamespace(plan=plan, refusals=Refusals() if refusals is None else refusals)


def test_alike() -> None:
    """The second of two that are written alike has a number."""
    names = ListenerNames()
    listeners = [listenerAt("tcp:0"), listenerAt("tcp:7"), listenerAt("tcp:0"), listenerAt("tcp:0")]
    assert names.of(listeners) == ["raw tcp:0", "raw tcp:7", "raw tcp:0 #2", "raw tcp:0 #3"]


def test_comesAndGoes() -> None:
    """While an old one has connections, one that is new at its endpoint has another name."""
    names = ListenerNames()
    old, new = listenerAt("tcp:7"), listenerAt("tcp:7")
    assert names.of([old]) == ["raw tcp:7"]
    # Those that serve come first.
    assert names.of([new, old]) == ["raw tcp:7 #2", "raw tcp:7"]
    assert names.of([new]) == ["raw tcp:7 #2"]
    assert names.of([listenerAt("tcp:7"), new]) == ["raw tcp:7", "raw tcp:7 #2"]


def test_heir() -> None:
    """One that goes on with another's counters has its name, unless it serves something else."""
    names = ListenerNames()
    refusals = Refusals()
    other = listenerAt("tcp:7")
    assert names.of([other, listenerAt("tcp:7", refusals)]) == ["raw tcp:7", "raw tcp:7 #2"]
    assert names.of([other, listenerAt("tcp:7", refusals)]) == ["raw tcp:7", "raw tcp:7 #2"]
    assert names.of([other, listenerAt("tcp:7", refusals, "line")]) == ["raw tcp:7", "line tcp:7"]
