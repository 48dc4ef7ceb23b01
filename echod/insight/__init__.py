"""
What happened, told by those who saw it: objects that every room above writes.

It may know `echod.wire` and Twisted's logger, and nobody who writes.
"""
