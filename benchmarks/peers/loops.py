"""Running a coroutine on asyncio's own event loop or on uvloop's."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Coroutine
from typing import Any


def runOn(loop: str, main: Coroutine[Any, Any, None]) -> None:
    """Run ``main`` on ``asyncio`` or ``uvloop``, the module of that name."""
    if loop == "asyncio":
        asyncio.run(main)
    else:
        # By name, so that type checking does not depend on what is installed.
        importlib.import_module(loop).run(main)
