"""
One connection: flow control, half-close, limits and deadlines, decided here and nowhere else.

It may know `echod.config` (limits), `echod.insight`, `echod.wire` and the contracts; of a
transport it knows `echod.interfaces.IConnectionTransport` alone.  Protocols reach it by
`echod.kit`.
"""
