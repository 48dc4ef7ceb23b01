"""
Bytes and values: where a message ends, what a header says, who a peer is, how often it may.

It may know `echod.errors` and the standard library.  It knows no Twisted, opens nothing and reads
no clock, so each of its functions can be tested with bytes alone.  `echod.wire.framing` is public
(docs/api.md).
"""
