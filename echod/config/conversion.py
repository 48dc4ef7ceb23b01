"""
Plain values, as TOML and the command line have them, made into typed ones: `convert`.

Pure.  What msgspec says of a wrong value becomes one line.  It names the place in the document
(``$.listener[1].options.prefix``), and what could stand there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from echod.errors import ConfigurationError

__all__ = ["convert", "listKeys", "splitLists"]

#: Characters of the longest number that is shown.
_NUMBER = 32

#: What msgspec calls lists, and the like of them.
_LISTS = (
    msgspec.inspect.ListType,
    msgspec.inspect.TupleType,
    msgspec.inspect.VarTupleType,
    msgspec.inspect.SetType,
    msgspec.inspect.FrozenSetType,
)

T = TypeVar("T", bound=Struct)


def convert(value: Mapping[str, Any], kind: type[T], place: str = "$", *, strict: bool = True) -> T:
    """
    Make a ``kind`` of plain values.

    :param place: where ``value`` stands in the document, for the message.
    :param strict: with ``False``, text is read as a number where a number is wanted.
    :raises ConfigurationError: what is wrong, where, and which keys there are.
    """
    try:
        return msgspec.convert(dict(value), kind, strict=strict)
    except msgspec.ValidationError as error:
        message = str(error)
        what, at, path = message.partition(" - at `$")
        where = place + path.removesuffix("`") if at else place
        key = path.removeprefix(".").removesuffix("`")
        there = _typeAt(kind, key)
        if "unknown field" in what and isinstance(there, msgspec.inspect.StructType):
            what += f" (there are: {', '.join(sorted(there.cls.__struct_encode_fields__))})"
        elif "enum" in what and (choices := _choices(there)):
            what += f" (there are: {', '.join(map(repr, choices))})"
        elif (" >= " in what or " <= " in what) and key in value:
            got = repr(value[key])
            # Longer, it is no number.
            what += f", not {got}" * (len(got) <= _NUMBER)
        raise ConfigurationError(f"{where}: {what}") from error


def listKeys(kind: type[Struct]) -> frozenset[str]:
    """The keys of a ``kind`` whose values are lists."""
    found = set()
    for field in msgspec.structs.fields(kind):
        info = _typeAt(kind, field.encode_name)
        kinds = info.types if isinstance(info, msgspec.inspect.UnionType) else [info]
        if any(isinstance(each, _LISTS) for each in kinds):
            found.add(field.encode_name)
    return frozenset(found)


def splitLists(value: Mapping[str, Any], kind: type[Struct]) -> dict[str, Any]:
    """``value`` with text cut at its commas where a ``kind`` wants a list."""
    keys = listKeys(kind)
    return {
        key: each.split(",") if key in keys and isinstance(each, str) else each
        for key, each in value.items()
    }


# Any: msgspec tells of types by classes without a common one; so in the two below.
def _typeAt(kind: type[Struct], path: str) -> Any:
    """What msgspec knows of the type at a path of keys, as they are written; or ``None``."""
    # Any: as above.
    info: Any = msgspec.inspect.type_info(kind)
    for step in re.findall(r"\[.*?\]|[^.\[]+", path):
        if step.startswith("["):
            info = getattr(info, "value_type", getattr(info, "item_type", None))
        else:
            fields = getattr(info, "fields", ())
            info = next((field.type for field in fields if field.encode_name == step), None)
        while isinstance(info, msgspec.inspect.Metadata):
            info = info.type
    return info


# Any: as above.
def _choices(info: Any) -> list[Any]:
    """The values of a type that has few."""
    if isinstance(info, msgspec.inspect.LiteralType):
        return list(info.values)
    if isinstance(info, msgspec.inspect.EnumType):
        return [member.value for member in info.cls]
    if isinstance(info, msgspec.inspect.UnionType):
        return [choice for each in info.types for choice in _choices(each)]
    return []
