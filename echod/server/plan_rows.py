"""
What is served, as plain values for JSON: `listenerRow`, `servedConfiguration`.

Both say what a configuration would say, with its keys; what was left out is told too, as it is in
force.  Secrets are not told: of a key of TLS only where it lies.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from echod.config.settings import Configuration
from echod.server.listener import Listener
from echod.server.plan import Plan
from echod.server.reload_record import ReloadRecord
from echod.wire.timestamps import rfc3339

__all__ = ["HIDDEN", "listenerRow", "servedConfiguration", "toldOptions"]

#: What is told of a secret.
HIDDEN = "***"

#: Parts of names of what is no one else's business.
_SECRET = frozenset(
    ("password", "passwd", "pass", "passphrase", "secret", "token", "key", "credential", "pin")
)
#: Of a table of their own.
_TABLES = ("defaults", "listener")


def listenerRow(listener: Listener) -> dict[str, object]:
    """One listener, with the limits that are in force."""
    plan = listener.plan
    return {
        "listener": listener.describe(),
        "protocol": plan.maker.name,
        "endpoint": str(listener.endpoint),
        "traits": [*plan.traits, *listener.ownTraits],
        "listens": listener.listens,
        "open": listener.connectionCount,
        "limits": _limits(listener),
        **_layers(listener),
        "certificates": [
            {
                "name": expiry.name,
                "path": expiry.path,
                "not_after": rfc3339(expiry.notAfter),
                "fingerprint": expiry.fingerprint,
            }
            for expiry in plan.expiries
        ],
    }


def servedConfiguration(
    plan: Plan, listeners: Iterable[Listener], reloads: ReloadRecord
) -> dict[str, object]:
    """A plan as it is served, and how its reloads went."""
    keys = {
        field.encode_name: getattr(plan, field.name)
        for field in msgspec.structs.fields(Configuration)
        if field.encode_name not in _TABLES and hasattr(plan, field.name)
    }
    return {
        **keys,
        "listener": [_table(listener) for listener in listeners],
        "notes": list(plan.notes),
        "reload": {
            "succeeded": _time(reloads.succeededAt),
            "refused": reloads.refused or None,
            "refused_at": _time(reloads.refusedAt),
        },
    }


def _table(listener: Listener) -> dict[str, object]:
    """A ``[[listener]]``, with what it has by default."""
    plan = listener.plan
    mode = getattr(plan.endpoint, "mode", None)
    return {
        "protocol": plan.maker.name,
        "endpoint": str(listener.endpoint),
        **({} if mode is None else {"mode": f"{mode:o}"}),
        "place": plan.place,
        **_limits(listener),
        "options": toldOptions(plan.options),
        **_layers(listener),
    }


def _limits(listener: Listener) -> dict[str, object]:
    """Those that are in force, also where nobody has given one."""
    limits: dict[str, object] = msgspec.to_builtins(listener.plan.limits)
    return {**limits, "timeline": listener.timeline}


def _layers(listener: Listener) -> dict[str, object]:
    return {layer.name: layer.told() for layer in listener.plan.layers}


def _time(at: float | None) -> str | None:
    return None if at is None else rfc3339(at)


def toldOptions(options: Struct | None) -> dict[str, object]:
    """
    A protocol's options by their keys, without secrets.

    A secret is what its declaration calls one (``Meta(extra={"secret": True})``), and whatever has
    ``password``, ``token``, ``key`` or the like in its name.
    """
    if options is None:
        return {}
    declared = {
        field.encode_name
        for field in msgspec.structs.fields(options)
        if _isDeclared(msgspec.inspect.type_info(field.type))
    }
    # Whatever JSON has no word for is told as Python writes it.
    plain = msgspec.to_builtins(options, str_keys=True, enc_hook=repr)
    return {key: HIDDEN if key in declared else _told(key, value) for key, value in plain.items()}


def _isDeclared(kind: msgspec.inspect.Type) -> bool:
    while isinstance(kind, msgspec.inspect.Metadata):
        if (kind.extra or {}).get("secret"):
            return True
        kind = kind.type
    return False


# Any: whatever JSON can hold.
def _told(key: str, value: Any) -> object:
    if _SECRET & set(re.split("[^a-z]+", key.lower())):
        return HIDDEN
    if isinstance(value, Mapping):
        return {each: _told(each, found) for each, found in value.items()}
    if isinstance(value, list | tuple):
        return [_told("", each) for each in value]
    return value
