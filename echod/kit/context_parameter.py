"""
Who is given the context: whatever has a parameter of the name ``context``.

That holds for ``makeFactory`` and ``makeDatagram`` of any maker (`callMaker`), and for the function
or class that a maker of the kit is made of (`given`).  The signature is looked at once a listener,
as its factory is made.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from msgspec import Struct

from echod.interfaces import ServerContext

__all__ = ["callMaker", "canCallMaker", "given", "takesContext"]

_Made = TypeVar("_Made")

_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def takesContext(function: Callable[..., Any]) -> bool:
    """Whether ``function`` has a parameter of that name."""
    try:
        found = inspect.signature(function).parameters.get("context")
    except (TypeError, ValueError):
        # It is written in C, and does not say.
        return False
    return found is not None and found.kind in _NAMED


def callMaker(
    method: Callable[..., _Made], settings: Struct | None, context: ServerContext
) -> _Made:
    """What ``makeFactory`` or ``makeDatagram`` makes, with the context or without."""
    return method(settings, context=context) if takesContext(method) else method(settings)


def canCallMaker(method: Callable[..., Any]) -> bool:
    """Whether `callMaker` can call it, as far as its signature says."""
    context = {"context": None} if takesContext(method) else {}
    try:
        inspect.signature(method).bind(None, **context)
    except TypeError:
        return False
    except ValueError:
        # It is written in C, and does not say.
        return True
    return True


def given(context: ServerContext | None, function: Callable[..., _Made]) -> Callable[..., _Made]:
    """
    ``function`` with the context, if it takes one.

    :raises TypeError: it takes one, and there is none.
    """
    if not takesContext(function):
        return function
    if context is None:
        raise TypeError(f"{function!r} needs a context: call makeFactory(settings, context)")
    return partial(function, context=context)
