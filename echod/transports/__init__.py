"""The rooms that touch sockets, and the private parts of Twisted."""
