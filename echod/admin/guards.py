"""
Who is turned away before anything is looked up, and what every answer says to browsers.

A listener on loopback is no fence against web pages: the browser that shows one may run on this
machine, and the page's own name can be made to lead here (DNS rebinding).  Such a request has that
name in its ``Host``, and one of another site says so in ``Sec-Fetch-Site`` (W3C Fetch Metadata).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection

__all__ = ["HEADERS", "hostAllowed", "siteAllowed"]

#: Of every answer: nothing of elsewhere runs in it, nobody frames it, nobody keeps it.
HEADERS = (
    (
        b"Content-Security-Policy",
        (
            b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
            b" img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        ),
    ),
    (b"X-Content-Type-Options", b"nosniff"),
    (b"Referrer-Policy", b"no-referrer"),
    (b"Cross-Origin-Resource-Policy", b"same-origin"),
    (b"Cache-Control", b"no-store"),
)

_HOST = re.compile(rb"(?:\[([0-9A-Fa-f:.%A-Za-z]+)\]|([^\[\]:@/?#\s]+))(?::[0-9]*)?", re.ASCII)


def hostAllowed(value: bytes, names: Collection[str]) -> bool:
    """
    Whether a ``Host`` is an address, ``localhost`` or one of ``names``; its port is ignored.

    :param names: in lower case.
    """
    found = _HOST.fullmatch(value)
    if found is None:
        return False
    try:
        if found[1] is not None:
            ipaddress.IPv6Address(found[1].decode("ascii"))
            return True
        name = found[2].decode("ascii").lower()
    except ValueError:
        return False
    if name == "localhost" or name in names:
        return True
    try:
        ipaddress.IPv4Address(name)
    except ValueError:
        return False
    return True


def siteAllowed(value: bytes | None) -> bool:
    """Whether ``Sec-Fetch-Site`` is missing, or says: this site, or the user by hand."""
    return value is None or value in (b"same-origin", b"none")
