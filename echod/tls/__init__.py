"""
TLS without a transport: files to an ``ssl.SSLContext``, and what a handshake has agreed on.

It may know `echod.config`, `echod.errors`, the standard library's ``ssl``, cryptography and
service-identity.  It knows no Twisted: bytes are carried by `echod.transports.layers`.
"""
