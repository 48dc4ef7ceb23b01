"""The code that a page shows between fences."""

from __future__ import annotations

import re

__all__ = ["codeBlocks"]


def codeBlocks(language: str, text: str) -> list[str]:
    """The blocks of a page's ``text`` that are marked as of a language, in their order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
