"""
echod: an echo daemon on Twisted that returns every byte, once, in order.

``twistd -n --pidfile= echod --port 1234`` serves RFC 862 over TCP; README.md tells the
rest, docs/architecture.md how the rooms fit together.
"""

__all__ = ["__version__"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    __version__: str
else:

    def __getattr__(name):
        """The version when somebody asks: reading metadata takes longer than a whole probe."""
        if name != "__version__":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib.metadata import version

        return globals().setdefault(name, version("twisted-echod"))
