"""
echod: an echo daemon on Twisted that returns every byte, once, in order.

``twistd -n --pidfile= echod --port 1234`` serves RFC 862 over TCP; README.md tells the
rest, docs/architecture.md how the rooms fit together.
"""

from importlib.metadata import version

__all__ = ["__version__"]

__version__ = version("twisted-echod")
