"""
What a listener of ``admin`` builds connections with, and what all of them share.

`AdminFactory` decides who is answered at all: which methods, which hosts, which sites.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import partial
from weakref import WeakValueDictionary

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory

from echod.admin.answering import Answering
from echod.admin.bodies import Reply, line
from echod.admin.channel import AdminChannel, AdminConnection, AdminRequest
from echod.admin.events import Events
from echod.admin.fair_turns import SharedTurns
from echod.admin.guards import hostAllowed, siteAllowed
from echod.admin.pages import EVENTS, Pages
from echod.admin.query import parseQuery
from echod.errors import UnknownWord
from echod.interfaces import ServerContext

__all__ = ["AdminFactory", "Shared", "sharedBy"]

_METHODS = (b"GET", b"HEAD")
#: RFC 9112 section 3.2.2: what a proxy is asked for.
_ABSOLUTE = re.compile(rb"https?://([^/?#]*)([^#]*)", re.IGNORECASE)


class Shared:
    """What the listeners of one server share, those that a reload has replaced included."""

    def __init__(self, context: ServerContext) -> None:
        self.context = context
        self.turns = SharedTurns(context.clock)
        self.pages = Pages(context, self.turns)
        self.events = Events(context)


# By the context, which each of them holds, so that it is this one as long as it is here.
_shared: WeakValueDictionary[int, Shared] = WeakValueDictionary()


def sharedBy(context: ServerContext) -> Shared:
    """What those of this server share: made for the first, and gone with the last."""
    found = _shared.get(id(context))
    if found is None:
        found = _shared[id(context)] = Shared(context)
    return found


class AdminFactory(Factory):
    """
    Builds the connections of one listener, and answers their requests.

    :param shared: see `sharedBy`.
    :param hosts: names that it may be asked for.
    """

    noisy = False
    protocol = AdminConnection

    def __init__(self, shared: Shared, hosts: Iterable[str]) -> None:
        self._shared = shared
        self._hosts = {host.lower() for host in hosts}

    def buildProtocol(self, addr: IAddress | None) -> AdminConnection:
        """One connection; its owner is for the listener to set."""
        return AdminConnection(AdminChannel(self))

    def startFactory(self) -> None:
        """Serve, perhaps again."""
        self._shared.events.begin()

    def drainBegins(self) -> None:
        """See `IStreamProtocolMaker.makeFactory`: whoever only looks on is not waited for."""
        self._shared.events.end()

    def answer(self, request: AdminRequest) -> None:
        """Answer it, now and in the turns to come."""
        target, query, host = _target(request)
        reply = self._refusal(request, host)
        if reply is None and target == EVENTS:
            reply = self._events(request, query)
            if reply is None:
                return
        accept = b",".join(request.requestHeaders.getRawHeaders(b"Accept", [])).decode("latin-1")
        lookUp = partial(self._shared.pages.lookUp, target, query, accept)
        Answering(request, lookUp if reply is None else partial(_same, reply), self._shared.turns)

    def _events(self, request: AdminRequest, query: bytes) -> Reply | None:
        """Begin a stream; or what is answered in place of one."""
        try:
            parseQuery(query, ())
        except UnknownWord as error:
            return line(400, str(error))
        return self._shared.events.serve(request)

    def _refusal(self, request: AdminRequest, host: bytes | None) -> Reply | None:
        """What is said to who is turned away."""
        allow = (b"Allow", b", ".join(_METHODS))
        if request.method not in _METHODS:
            return line(405, "there are GET and HEAD: nothing can be changed here", allow)
        if request.expects:
            return line(417, "nothing is to be expected: ask without Expect")
        if request.hasBody:
            return line(413, "a request has no body here")
        hosts = request.requestHeaders.getRawHeaders(b"Host", [])
        if len(hosts) > 1 or (not hosts and request.clientproto != b"HTTP/1.0"):
            return line(400, "a request of HTTP/1.1 has one Host")
        asked = host if host is not None else hosts[0] if hosts else None
        if asked is not None and not hostAllowed(asked, self._hosts):
            return line(
                421,
                "Host must be an address, localhost, or a name in the option hosts:"
                " [listener.options] hosts = [NAME], or --option admin.hosts=NAME",
            )
        sites = request.requestHeaders.getRawHeaders(b"Sec-Fetch-Site", [])
        if not all(map(siteAllowed, sites)):
            return line(403, "a page of another site has no business here")
        return None


def _target(request: AdminRequest) -> tuple[bytes, bytes, bytes | None]:
    """The path, the query, and the host where the target names one."""
    absolute = _ABSOLUTE.fullmatch(request.uri)
    host, rest = (None, request.uri) if absolute is None else (absolute[1], absolute[2] or b"/")
    path, _, query = rest.partition(b"?")
    return path or b"/", query, host


def _same(reply: Reply) -> Reply:
    return reply
