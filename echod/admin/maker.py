"""``admin``: the maker of the protocol, which loads the rest when somebody serves it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated

from msgspec import Meta, field
from twisted.internet.interfaces import IProtocolFactory
from zope.interface import implementer

from echod.interfaces import IStreamProtocolMaker, ServerContext
from echod.kit import ProtocolOptions

__all__ = ["AdminMaker", "AdminOptions", "admin"]


_NAME = re.compile("[A-Za-z0-9_-]+(?:[.][A-Za-z0-9_-]+)*")


class AdminOptions(ProtocolOptions, frozen=True):
    """
    The options of ``admin``.

    :ivar hosts: names beside addresses and ``localhost``.
    """

    hosts: Annotated[
        list[str], Meta(description="names that it may be asked for, as in Host of HTTP")
    ] = field(default_factory=list)

    def __post_init__(self) -> None:
        for host in self.hosts:
            if not _NAME.fullmatch(host):
                raise ValueError(f"{host!r} is no name of a host: write it without a port")


@implementer(IStreamProtocolMaker)
class AdminMaker:
    """Makes what answers HTTP for each listener."""

    name = "admin"
    description = "what the server knows of itself, over HTTP, read-only"
    options = AdminOptions
    #: A browser has up to six connections, and keeps them; each is closed after a minute.
    defaults: Mapping[str, float] = {"idle_timeout": 60.0, "max_connections": 128}
    lasts = insight = True
    loopback = True

    def makeFactory(self, settings: AdminOptions, context: ServerContext) -> IProtocolFactory:
        """See `IStreamProtocolMaker.makeFactory`."""
        from echod.admin.factory import AdminFactory, sharedBy

        return AdminFactory(sharedBy(context), settings.hosts)


admin = AdminMaker()
