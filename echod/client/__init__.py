"""
The other end: a connection to await, and the probe ``check``.

It may know `echod.kit`, `echod.connection`, `echod.transports`, `echod.tls` and `echod.config`, and
nothing of a server.  `connect`, `connectUNIX` and `ClientTLS` are public (docs/api.md).  They are
looked up when somebody asks for one, because the probe is to be quick and needs no Twisted.
"""

__all__ = ["ClientTLS", "connect", "connectUNIX"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from echod.client.awaitable import connect, connectUNIX
    from echod.tls.context import ClientTLS
else:

    def __getattr__(name):
        """One of the public names."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from echod.client import awaitable

        return globals().setdefault(name, getattr(awaitable, name))
