r"""
JSON that is safe wherever it is shown: `safeJSON`.

Peers write names: of servers, of certificates, in headers.  A terminal obeys control characters,
and marks of writing direction make text look like another.  So whatever is not printable ASCII is
written as ``\u001b``, and ``<`` is too, for who puts it into a page.
"""

from __future__ import annotations

import json
import re

import msgspec

__all__ = ["safeJSON"]

_UNSAFE = re.compile(r"[^\x20-\x7e]|<")


def safeJSON(value: object) -> bytes:
    """One line of JSON in printable ASCII, without its end."""
    try:
        data = msgspec.json.encode(value)
    except UnicodeEncodeError:
        # Half a surrogate pair, which is no text.
        data = json.dumps(value, separators=(",", ":")).encode()
    if data.isascii() and b"<" not in data and b"\x7f" not in data:
        return data
    # All of them stand in strings: the rest of JSON is printable ASCII.
    return _UNSAFE.sub(_escaped, data.decode()).encode("ascii")


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code <= 0xFFFF:  # noqa: PLR2004  # the basic plane of Unicode
        return f"\\u{code:04x}"
    # RFC 8259 section 7: as a pair of surrogates.
    code -= 0x10000
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"
