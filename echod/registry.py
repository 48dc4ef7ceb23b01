"""
Which protocols there are.

Constructors are pure: `Registry` takes the makers it is to know.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from echod.errors import ConfigurationError
from echod.interfaces import IProtocolMaker
from echod.protocols.line import line
from echod.protocols.prefixed import dns
from echod.protocols.raw import raw
from echod.settings import convert

__all__ = ["BUILTIN", "Registry"]

BUILTIN: tuple[IProtocolMaker, ...] = (raw, line, dns)


class Registry:
    """Protocol makers by name."""

    def __init__(self, makers: Iterable[IProtocolMaker] = BUILTIN) -> None:
        self._makers = {maker.name: maker for maker in makers}

    def get(self, name: str, place: str) -> IProtocolMaker:
        """
        The maker called ``name``.

        :param place: where the name was written, for the message.
        :raises ConfigurationError: if there is none.
        """
        try:
            return self._makers[name]
        except KeyError:
            known = ", ".join(sorted(self._makers))
            raise ConfigurationError(
                f"{place}: no protocol {name!r} (there are: {known})"
            ) from None

    def settings(
        self, maker: IProtocolMaker, options: Mapping[str, Any], place: str, *, strict: bool
    ) -> Any:
        """A maker's typed settings of plain values; see `echod.settings.convert`."""
        return convert(options, maker.options, place, strict=strict)

    def describe(self) -> str:
        """Every protocol with its options, as ``--list-protocols`` prints it."""
        lines = []
        for maker in self._makers.values():
            lines.append(f"{maker.name}  {maker.description}")
            lines.extend(f"    {key} = {value}" for key, value in maker.defaults.items())
            lines.extend(_describeOption(field) for field in msgspec.structs.fields(maker.options))
        return "\n".join(lines)


def _describeOption(field: msgspec.structs.FieldInfo) -> str:
    info: Any = msgspec.inspect.type_info(field.type)
    words = []
    while isinstance(info, msgspec.inspect.Metadata):
        words.append((info.extra_json_schema or {}).get("description", ""))
        info = info.type
    kind = type(info).__name__.removesuffix("Type").lower()
    default = msgspec.json.encode(field.default).decode()
    described = next(filter(None, words), "")
    return f"    options.{field.encode_name}: {kind} = {default}  {described}".rstrip()
