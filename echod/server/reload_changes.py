"""What a reload changes, by the keys that somebody has written: `Changes` of a listener."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from msgspec import Struct
from twisted.logger import Logger

from echod.server.listener import Listener, ListenerPlan
from echod.server.plan import Plan
from echod.tls.facts import CertificateExpiry
from echod.wire.keys import keyOf

__all__ = ["Changes", "tellSettings"]

_log = Logger()

#: What a plan has for all listeners together.
_SETTINGS = ("drainDelay", "drainTimeout", "logConnections", "logPayload", "logFormat")


def tellSettings(before: Plan, after: Plan) -> None:
    """Say in the log which keys at the top of the file are others now, if any are."""
    keys = [keyOf(name) for name in _SETTINGS if getattr(before, name) != getattr(after, name)]
    if keys:
        _log.info("changed for all: {_keys}", event="settings", keys=keys, _keys=", ".join(keys))


class Changes:
    """
    How the plan of a listener that goes on differs from the one before.

    :ivar keys: of its table, as ``idle_timeout``, ``options.prefix`` or ``tls.cert``.
    :ivar renewed: the certificates that are others now, under the same names.
    """

    def __init__(self, before: ListenerPlan, after: ListenerPlan) -> None:
        self.keys = [*_keys(before, after)]
        known = {each.name: each for each in before.expiries}
        self.renewed: list[CertificateExpiry] = [
            each
            for each in after.expiries
            if each.name in known
            and (known[each.name].fingerprint, known[each.name].notAfter)
            != (each.fingerprint, each.notAfter)
        ]

    def tell(self, listener: Listener) -> None:
        """Say so in the log, of ``listener``, which is what it is to be by now."""
        if self.keys:
            _log.info(
                "changed {listener}: {_keys}",
                event="changed",
                listener=listener.describe(),
                keys=self.keys,
                _keys=", ".join(self.keys),
            )
        for each in self.renewed:
            _log.info(
                "renewed {listener}: certificate {path} expires at {notAfter}",
                event="certificate_renewed",
                listener=listener.describe(),
                path=each.path,
                name=each.name,
                notAfter=each.until,
            )


def _keys(before: ListenerPlan, after: ListenerPlan) -> Iterator[str]:
    if before.maker != after.maker:
        yield "protocol"
    # Where it is is the same, but its file's mode may not be.
    if getattr(before.endpoint, "mode", None) != getattr(after.endpoint, "mode", None):
        yield "endpoint"
    yield from _differences(before.limits, after.limits, "")
    yield from _differences(before.options, after.options, "options")
    terms = {layer.name: layer.terms() for layer in before.layers}
    for layer in after.layers:
        if layer.name in terms:
            yield from _differences(terms.pop(layer.name), layer.terms(), layer.name)
        else:
            yield layer.name
    yield from terms


def _differences(before: object, after: object, table: str) -> Iterator[str]:
    """The keys of a table whose values differ; of what is no table, its own."""
    if before == after:
        return
    if not (isinstance(before, Struct) and isinstance(after, type(before))):
        yield table
        return
    for field in msgspec.structs.fields(before):
        if getattr(before, field.name) != getattr(after, field.name):
            yield f"{table}.{field.encode_name}" if table else field.encode_name
