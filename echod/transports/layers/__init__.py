"""
What comes between a socket and a connection: a PROXY header, TLS.

Each layer is a mixin over `echod.transports.socket_stream.SocketStream`, so that it works the same
over TCP and UNIX sockets.
"""
