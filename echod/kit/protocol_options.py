"""
What the options of a protocol have in common: `ProtocolOptions`, to be subclassed.

::

    class ShoutOptions(ProtocolOptions, frozen=True):
        maxLength: Annotated[int, Meta(ge=1, description="bytes of a line")] = 1024

A configuration says ``options = {max_length = 80}``, and the protocol reads ``options.maxLength``.
"""

from __future__ import annotations

from msgspec import Struct

from echod.wire.keys import keyOf

__all__ = ["ProtocolOptions"]


class ProtocolOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename=keyOf):
    """Options that are typed, each with a default; a key that there is not is an error."""
