"""
Sockets, and the private parts of Twisted: ports, streams and datagrams as echod needs them.

It may know `echod.config` (endpoints), `echod.tls`, `echod.insight` and `echod.wire`, and it is
the only room that knows what Twisted does not promise (docs/twisted.md).  It knows no connection
and no protocol: it calls what `echod.interfaces` describes.
"""
