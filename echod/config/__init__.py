"""
What an operator writes, as typed values: settings, endpoint words, and files that are believed.

It may know `echod.wire` and `echod.errors`.  It knows no Twisted and makes no socket; what a
configuration leads to is decided in `echod.server.plan`.
"""
