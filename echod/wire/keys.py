"""
How an attribute is called in files and in JSON: `keyOf`.

Attributes are written as Twisted writes them (``idleTimeout``), keys as TOML's and JSON's users do
(``idle_timeout``).  msgspec converts between them: ``class Limits(Struct, rename=keyOf)``.
"""

from __future__ import annotations

import re

__all__ = ["keyOf"]


def keyOf(attribute: str) -> str:
    """``idle_timeout`` for ``idleTimeout``; a run of capitals is one word, as in ``tls_facts``."""
    return re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", attribute).lower()
